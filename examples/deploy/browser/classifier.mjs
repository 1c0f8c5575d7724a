// A file of `skxma export` in a browser: its metadata, images as pixels of the model's size, answers.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

// more threads need headers that a plain file server does not send
ort.env.wasm.numThreads = 1;

const UNKNOWN = -1;
const METADATA_FIELD = 14;
const LONGEST_STRIP = 50;
const PRECISION_BITS = 22;

export class Classifier {
  static async load(bytes) {
    const about = readMetadata(bytes);
    if (!("skxma_version" in about)) throw new Error("This file was not written by `skxma export`.");
    return new Classifier(await ort.InferenceSession.create(bytes), about);
  }

  constructor(session, about) {
    this.session = session;
    this.about = about;
  }

  // Answers for images, each an ImageData.
  async predictImages(images) {
    const [height, width] = this.about.image_size;
    const pixels = new Uint8Array(images.length * height * width * 3);
    images.forEach((image, i) => pixels.set(toPixels(image, this.about), i * height * width * 3));
    return this.run(new ort.Tensor("uint8", pixels, [images.length, height, width, 3]));
  }

  // Answers for embeddings, an array of n rows of numbers.
  async predictEmbeddings(rows) {
    const data = Float32Array.from(rows.flat());
    return this.run(new ort.Tensor("float32", data, [rows.length, rows[0].length]));
  }

  async run(tensor) {
    const outputs = await this.session.run({ [this.session.inputNames[0]]: tensor });
    const { classes, unknown_label: unknown } = this.about;
    const n = classes.length;
    return Array.from(outputs.answers.data, (answer, i) => ({
      label: Number(answer) === UNKNOWN ? unknown : classes[Number(answer)],
      probabilities: Array.from(outputs.probabilities.data.subarray(i * n, (i + 1) * n)),
    }));
  }
}

// The metadata of a file of ONNX, which onnxruntime-web does not give: field 14 of the outermost message.
export function readMetadata(bytes) {
  const about = {};
  for (const [field, value] of fields(bytes)) {
    if (field !== METADATA_FIELD) continue;
    const entry = Object.fromEntries(fields(value));
    const text = (part) => new TextDecoder().decode(part);
    try {
      about[text(entry[1])] = JSON.parse(text(entry[2]));
    } catch {
      // an entry of another program
    }
  }
  return about;
}

// The fields of a message of Protocol Buffers that hold bytes.
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const kind = key & 7;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else {
      const length = varint();
      yield [Math.floor(key / 8), bytes.subarray(at, at + length)];
      at += length;
    }
  }
}

// A file as ImageData, upright and on white.
export async function decode(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// ImageData as RGB of the model's size, resized as Pillow does, to the digit.
export function toPixels(data, about) {
  const [height, width] = about.image_size;
  const rgb = new Uint8ClampedArray((data.data.length / 4) * 3);
  for (let i = 0, j = 0; i < data.data.length; i += 4) for (let c = 0; c < 3; c++) rgb[j++] = data.data[i + c];
  let image = { width: data.width, height: data.height, rgb };
  if (about.resize_mode === "squash") return resize(image, width, height, about.interpolation).rgb;
  const short = Math.min(image.width, image.height);
  const across = Math.floor(Math.max(0, image.width - LONGEST_STRIP * short) / 2);
  const down = Math.floor(Math.max(0, image.height - LONGEST_STRIP * short) / 2);
  image = frame(image, across, down, image.width - 2 * across, image.height - 2 * down, 0);
  const ratios = [image.height / height, image.width / width];
  let [w, h] = [image.width, image.height];
  let interpolation = about.interpolation;
  if (about.resize_mode === "longest") {
    [w, h] = [w, h].map((side) => roundHalfEven(side / Math.max(...ratios)));
  } else if (height === width) {
    const [low, high] = [Math.min(w, h), Math.max(w, h)];
    [w, h] = [w, h].map((side) => (side === low ? height : Math.trunc((height * high) / low)));
  } else {
    // open_clip does not pass its interpolation on here
    interpolation = "bicubic";
    [w, h] = [w, h].map((side) => roundHalfEven(side / Math.min(...ratios)));
  }
  image = resize(image, w, h, interpolation);
  const [wide, high] = [Math.max(width, w), Math.max(height, h)];
  image = frame(image, -Math.floor((wide - w) / 2), -Math.floor((high - h) / 2), wide, high, about.fill_color);
  return frame(image, roundHalfEven((wide - width) / 2), roundHalfEven((high - height) / 2), width, height, 0).rgb;
}

// A part of an image; what lies outside of it is filled.
function frame(image, left, top, width, height, fill) {
  const rgb = new Uint8ClampedArray(width * height * 3).fill(fill);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [u, v] = [x + left, y + top];
      if (u < 0 || v < 0 || u >= image.width || v >= image.height) continue;
      for (let c = 0; c < 3; c++) rgb[(y * width + x) * 3 + c] = image.rgb[(v * image.width + u) * 3 + c];
    }
  }
  return { width, height, rgb };
}

// Python's rounding.
function roundHalfEven(x) {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + (below % 2) : Math.round(x);
}

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight: (x) => {
      const a = -0.5;
      const t = Math.abs(x);
      if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
      return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
    },
  },
};

// Pillow's resizing, with its fixed-point coefficients. Like Pillow 13 it resizes the
// columns first where an image loses more than twice as many rows as columns; Pillow 12 never does, and differs there.
export function resize(image, width, height, interpolation) {
  const columnsFirst = image.height > height && 2 * (image.width - width) < image.height - height;
  return columnsFirst
    ? resizeRows(resizeColumns(image, height, interpolation), width, interpolation)
    : resizeColumns(resizeRows(image, width, interpolation), height, interpolation);
}

function resizeRows(image, width, interpolation) {
  if (width === image.width) return image;
  const places = weights(image.width, width, interpolation);
  return { width, height: image.height, rgb: pass(image.rgb, image.height, image.width * 3, 3, places, false) };
}

function resizeColumns(image, height, interpolation) {
  if (height === image.height) return image;
  const places = weights(image.height, height, interpolation);
  return { width: image.width, height, rgb: pass(image.rgb, image.width, 3, image.width * 3, places, true) };
}

// For each place of the result the first place that counts, and the coefficients from there on.
function weights(from, to, interpolation) {
  const { support, weight } = FILTERS[interpolation];
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support * stretch + 0.5));
    const last = Math.min(from, Math.trunc(center + support * stretch + 0.5));
    const raw = [];
    for (let x = first; x < last; x++) raw.push(weight((x - center + 0.5) * (1 / stretch)));
    const total = raw.reduce((sum, value) => sum + value, 0);
    const unit = 2 ** PRECISION_BITS;
    const fixed = raw.map((value) => {
      const share = total === 0 ? value : value / total;
      return Math.trunc((share < 0 ? -0.5 : 0.5) + share * unit);
    });
    return { first, fixed };
  });
}

// One direction: `lines` lines that begin `lineStep` apart, along which places are `step` apart.
function pass(rgb, lines, lineStep, step, places, vertical) {
  const out = new Uint8ClampedArray(lines * places.length * 3);
  const half = 2 ** (PRECISION_BITS - 1);
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < places.length; place++) {
      const { first, fixed } = places[place];
      for (let c = 0; c < 3; c++) {
        let sum = half;
        let at = line * lineStep + first * step + c;
        for (let k = 0; k < fixed.length; k++, at += step) sum += rgb[at] * fixed[k];
        const target = vertical ? (place * lines + line) * 3 : (line * places.length + place) * 3;
        // a clamped array keeps to 0 and 255
        out[target + c] = sum >> PRECISION_BITS;
      }
    }
  }
  return out;
}

"""Sharing over a stand-in for the hub that speaks its HTTP interface."""

import base64
import hashlib
import http.server
import json
import os
import re
import threading

import numpy as np
import pytest
from problems import make_problem

import skxma
from skxma import XMAdapterClassifier
from skxma.baselines import TipAdapterClassifier
from skxma.cli import main
from skxma.datasets import load_emoji

huggingface_hub = pytest.importorskip("huggingface_hub", minversion="1.0")
REPO = "someone/emoji"


class Hub(http.server.ThreadingHTTPServer):
    """Repositories of files in this process; `broken` names the step at which connections break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.private, self.large, self.broken, self.n_commits = {}, {}, {}, None, 0

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def broken_off(self, step):
        if self.server.broken != step:
            return False
        self.close_connection = True
        self.connection.close()
        return True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub, path = self.server, self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            if name in hub.repos:
                return self.answer({"url": f"{hub.address}/{name}"}, 409)
            hub.repos[name], hub.private[name] = {}, asked.get("visibility") == "private" or asked.get("private")
            return self.answer({"url": f"{hub.address}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return self.answer(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith(".skxma") else "regular",
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                }
            )
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{hub.address}/upload/{one['oid']}", "header": {}}},
                }
                for one in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            if self.broken_off("commit"):
                return None
            lines = [json.loads(line) for line in body.decode().splitlines() if line]
            files = {}
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
            hub.repos[path.removeprefix("/api/models/").partition("/commit/")[0]].update(files)
            hub.n_commits += 1
            commit = {"commitUrl": f"{hub.address}/{REPO}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True}
            return self.answer({**commit, "hookOutput": ""})
        return self.answer({}, 404)

    def do_PUT(self):
        if self.broken_off("upload"):
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[self.path.rpartition("/")[2]] = body
        self.answer(b"")

    def do_GET(self):
        found = re.fullmatch(r"/(?:api/resolve-cache/models/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        repo = None if found is None else self.server.repos.get(found[1])
        if repo is None:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        content = repo.get(found[2])
        if content is None:
            return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        oid = hashlib.sha1(content).hexdigest()
        return self.answer(content, X_Repo_Commit=oid, ETag=f'"{oid}"')

    def do_HEAD(self):
        self.do_GET()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def clf():
    emoji = load_emoji(as_paths=True)
    kept = np.isin(emoji.target, ["bear", "fox", "snail"])
    paths = [str(path) for path, one in zip(emoji.images, kept, strict=True) if one]
    return XMAdapterClassifier("tiny").fit(paths, emoji.target[kept])


def test_a_model_goes_to_the_hub_and_comes_back(hub, clf):
    assert clf.push_to_hub(REPO, license="cc-by-4.0").endswith(REPO)
    assert sorted(hub.repos[REPO]) == ["README.md", "model.skxma"]
    assert hub.private[REPO] is True
    again = skxma.load(f"hf-hub:{REPO}")
    images = load_emoji().images
    np.testing.assert_array_equal(again.predict_proba(images), clf.predict_proba(images))
    assert again.sample_names_ is None
    assert clf.sample_names_ is not None
    assert hub.repos[REPO]["model.skxma"][8:9] == b"{", "not a pickle, but the header of safetensors"


def test_commands_take_a_model_of_the_hub(hub, clf, capsys):
    clf.push_to_hub(REPO)
    image = str(load_emoji(as_paths=True).images[0])
    assert main(["predict", f"hf-hub:{REPO}", image]) == 0
    assert str(clf.predict([image])[0]) in capsys.readouterr().out


def test_the_card_says_what_a_reader_must_know(hub, clf):
    clf.push_to_hub(REPO, license="cc-by-4.0")
    card = hub.repos[REPO]["README.md"].decode()
    found = huggingface_hub.ModelCard(card).data
    assert (found.license, found.library_name, found.pipeline_tag) == ("cc-by-4.0", "skxma", "image-classification")
    for part in ("`tiny`", clf.encoder_fingerprint_, "| bear | 5 |", "90% interval", "calibration error", "15 support"):
        assert part in card
    assert "paths of these images" not in card
    clf.push_to_hub(REPO, include_paths=True)
    assert "paths of these images" in hub.repos[REPO]["README.md"].decode()
    assert skxma.load(f"hf-hub:{REPO}").sample_names_ is not None


def test_rivals_and_odd_labels(hub):
    problem = make_problem(n_classes=2)
    labels = np.array(["a|b", "<b>x</b>"])[problem.y]
    rival = TipAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, labels)
    rival.push_to_hub("someone/rival")
    card = hub.repos["someone/rival"]["README.md"].decode()
    assert r"| a\|b | 4 |" in card
    assert r"\<b\>x\</b\>" in card
    assert "not measured" in card
    again = skxma.load("hf-hub:someone/rival")
    np.testing.assert_array_equal(again.predict(problem.X_test), rival.predict(problem.X_test))


@pytest.mark.fault
@pytest.mark.parametrize("step", ["upload", "commit"])
def test_an_upload_that_breaks_off_changes_nothing(hub, clf, step, monkeypatch):
    clf.push_to_hub(REPO)
    before = dict(hub.repos[REPO])
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.broken = step
    other = XMAdapterClassifier("tiny").fit(load_emoji().images[:10], load_emoji().target[:10])
    with pytest.raises(OSError, match="was not uploaded to 'someone/emoji', where nothing has changed"):
        other.push_to_hub(REPO)
    assert hub.repos[REPO] == before
    assert hub.n_commits == 1
    hub.broken = None
    other.push_to_hub(REPO)
    assert skxma.load(f"hf-hub:{REPO}").classes_.tolist() == other.classes_.tolist()


@pytest.mark.fault
def test_without_a_network_the_cache_is_read(hub, clf, monkeypatch):
    clf.push_to_hub(REPO)
    skxma.load(f"hf-hub:{REPO}")
    monkeypatch.setattr("skxma._persistence.hub.unreachable_reason", lambda *_: "no network")
    assert skxma.load(f"hf-hub:{REPO}").classes_.tolist() == clf.classes_.tolist()
    with pytest.raises(OSError, match="is not in the hub's cache, and the hub can't be reached: no network"):
        skxma.load("hf-hub:someone/else")


@pytest.mark.bad_input
def test_names_that_lead_nowhere(hub, clf):
    with pytest.raises(FileNotFoundError, match=r"There is no model\.skxma in hf-hub:someone/nothing"):
        skxma.load("hf-hub:someone/nothing")
    hub.repos["someone/empty"] = {}
    with pytest.raises(FileNotFoundError, match="push_to_hub"):
        skxma.load("hf-hub:someone/empty")
    for call in (lambda: skxma.load("hf-hub:a/b/c"), lambda: clf.push_to_hub("a//b")):
        with pytest.raises(ValueError, match="is no name of a hub repository"):
            call()
    hub.repos["someone/pickle"] = {"model.skxma": b"\x80\x04\x95" + os.urandom(50)}
    with pytest.raises(ValueError, match="pickle"):
        skxma.load("hf-hub:someone/pickle")

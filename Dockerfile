# docker build --tag skxma . && docker run --rm --volume "$PWD:/data" skxma predict birds.skxma new/1.jpg
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/skxma
ENV PATH=/opt/skxma/bin:$PATH
COPY .ci/constraints.txt /constraints.txt
# from PyTorch's own index, because the wheels of PyPI bring CUDA; what they need comes from PyPI, with skxma
RUN pip install --no-deps --constraint /constraints.txt --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY . /source
RUN pip install --constraint /constraints.txt /source

FROM python:3.11-slim
COPY --from=build /opt/skxma /opt/skxma
ENV PATH=/opt/skxma/bin:$PATH
RUN useradd --create-home --uid 10001 skxma
USER skxma
WORKDIR /data
ENTRYPOINT ["skxma"]

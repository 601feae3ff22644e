# docker build -t fedmem . && docker run --rm -v "$PWD/runs:/work/runs" fedmem run quickstart
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
RUN python -m pip install --no-cache-dir "hatchling>=1.25" && python -m hatchling build --target wheel --directory /dist

FROM python:3.11-slim
RUN useradd --create-home fedmem && mkdir /work && chown fedmem /work
COPY --from=build /dist /dist
RUN python -m pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu /dist/*.whl
USER fedmem
WORKDIR /work
ENTRYPOINT ["fedmem"]
CMD ["--help"]

# One file for every service: docker build --build-arg SERVICE=ftp-gateway .
# tests/e2e/test_packaging.py runs the instructions of the stage "build" without Docker.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS uv
ENV UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements.lock ./
# The lock pins uv itself too, by hash.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock >uv.lock \
    && pip install --no-cache-dir --require-hashes -r uv.lock

FROM uv AS build
ARG SERVICE
COPY shared ./shared
COPY services/${SERVICE} ./services/${SERVICE}
RUN uv venv /opt/millrace
# --no-sources: the rooms name each other by path for uv, as editable; an image wants copies.
RUN uv pip install --python /opt/millrace/bin/python --no-sources --compile-bytecode \
    --constraints requirements.lock --build-constraints requirements.lock \
    ./shared ./services/${SERVICE}
# An exec-form ENTRYPOINT knows no ARG, so the service gets a name that is the same in every image.
RUN module=$(echo "${SERVICE}" | tr - _) \
    && /opt/millrace/bin/python -c "import ${module}.app" \
    && printf '#!/opt/millrace/bin/python\nimport runpy\n\nrunpy.run_module("%s", run_name="__main__", alter_sys=True)\n' \
    "${module}" >/opt/millrace/bin/service \
    && chmod 755 /opt/millrace/bin/service

FROM python:${PYTHON}-slim
ENV PATH=/opt/millrace/bin:$PATH PYTHONUNBUFFERED=1 MILLRACE_HTTP_HOST=0.0.0.0 MILLRACE_DATA_DIR=/data
COPY --from=build /opt/millrace /opt/millrace
RUN mkdir /data /reports && chown 10001:10001 /data /reports
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", "\
import os, urllib.request as http; \
http.urlopen('http://127.0.0.1:' + os.environ.get('MILLRACE_HTTP_PORT', '8080') + '/livez', timeout=4)"]
ENTRYPOINT ["/opt/millrace/bin/service"]

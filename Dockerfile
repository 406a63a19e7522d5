# Kinto with this plugin, for files in a folder, on S3 or on Google Cloud Storage.
FROM python:3.13-slim
COPY . /src
RUN pip install --no-cache-dir "/src[s3,gcs,images,resumable]" "kinto[postgresql]" gunicorn
RUN mkdir -p /etc/kinto /var/lib/kinto/files
RUN cp /src/config/local.ini /etc/kinto/kinto.ini && cp /src/config/gunicorn.conf.py /etc/kinto/
RUN chown nobody /var/lib/kinto/files
USER nobody
ENV KINTO_INI=/etc/kinto/kinto.ini
# Environment variables override what the ini file sets.
ENV KINTO_ATTACHMENT_BASE_PATH=/var/lib/kinto/files
EXPOSE 8888
CMD ["gunicorn", "--config", "/etc/kinto/gunicorn.conf.py", "--paste", "/etc/kinto/kinto.ini", "--bind", "0.0.0.0:8888"]

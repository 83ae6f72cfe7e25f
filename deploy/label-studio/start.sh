#!/bin/sh
# Label Studio behind Caddy, on PostgreSQL. Its secrets are read here, so that `docker inspect` does not show them.
set -eu
secret() { cat "/run/secrets/$1"; }

export DJANGO_DB=default POSTGRE_HOST=postgres POSTGRE_PORT=5432 POSTGRE_NAME=label_studio POSTGRE_USER=label_studio
POSTGRE_PASSWORD=$(secret label_studio_database_password)
SECRET_KEY=$(secret label_studio_secret_key)
LABEL_STUDIO_PASSWORD=$(secret maskloop_label_studio_password)
LABEL_STUDIO_USER_TOKEN=$(secret maskloop_label_studio_token)
export POSTGRE_PASSWORD SECRET_KEY LABEL_STUDIO_PASSWORD LABEL_STUDIO_USER_TOKEN
export LABEL_STUDIO_USERNAME="$MASKLOOP_LABEL_STUDIO_EMAIL" LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true
export LABEL_STUDIO_BASE_DATA_DIR=/label-studio/data LABEL_STUDIO_REPORTS=/opt/maskloop/reports
export PYTHONPATH=/opt/maskloop/site DJANGO_SETTINGS_MODULE=maskloop_settings

# Behind the proxy: the name people use, cookies over TLS alone, and nobody else's pages.
export LABEL_STUDIO_HOST="https://$MASKLOOP_LABELS_HOST${MASKLOOP_HTTPS_SUFFIX:-}"
export CSRF_TRUSTED_ORIGINS="$LABEL_STUDIO_HOST" CORS_ALLOWED_ORIGINS="$LABEL_STUDIO_HOST"
export ALLOWED_HOSTS="$MASKLOOP_LABELS_HOST,label-studio,127.0.0.1"
export SESSION_COOKIE_SECURE=1 CSRF_COOKIE_SECURE=1 LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK=true

# Addresses that people write down are fetched from nowhere private but the network of the model services.
export USE_DEFAULT_BANNED_SUBNETS=false
USER_ADDITIONAL_BANNED_SUBNETS=$(python3 -m maskloop_networks "$MASKLOOP_BACKENDS_SUBNET")
export USER_ADDITIONAL_BANNED_SUBNETS

export SENTRY_DSN='' FRONTEND_SENTRY_DSN='' COLLECT_ANALYTICS=false LATEST_VERSION_CHECK=false PYTHONUNBUFFERED=1
export DATA_MANAGER_FILTER_ALLOWLIST=locks__expire_at
if [ -n "${STORAGE_EMULATOR_HOST:-}" ]; then
  export RESOLVER_PROXY_GCS_DOWNLOAD_URL="$STORAGE_EMULATOR_HOST/storage/v1/b/{bucket_name}/o/{blob_name}?alt=media"
else
  unset STORAGE_EMULATOR_HOST
  if [ -s /run/secrets/maskloop_google_key ]; then
    umask 077 && base64 -d /run/secrets/maskloop_google_key > /tmp/google-key.json
    export GOOGLE_APPLICATION_CREDENTIALS=/tmp/google-key.json
  fi
fi
if [ $# -gt 0 ]; then # another program of ours, with the same settings
  cd /opt/maskloop/site
  exec python3 "$@"
fi
python3 /opt/maskloop/site/maskloop_account.py
exec label-studio start --no-browser --internal-host 0.0.0.0 -p 8080

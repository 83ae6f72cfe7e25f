#!/usr/bin/env bash
# From nothing to a running server on Google Cloud. Run again it changes what differs from settings.sh: names, buckets,
# rights. A larger machine or disk, and newer code, are for people: see docs/deploy.md.
# Needs gcloud, logged in with an account that owns the project (Cloud Shell has both). See docs/deploy.md.
# A source bucket that exists gets two permissions and nothing else, unless --harden says otherwise.
set -euo pipefail
harden=no
case ${1:-} in '') ;; --harden) harden=yes ;; *) echo "usage: $0 [--harden]" >&2; exit 2 ;; esac
cd "$(dirname "$0")"
[ -f settings.sh ] || { echo "copy settings.sh.example to settings.sh and fill it in first" >&2; exit 1; }
# shellcheck source=settings.sh.example
. ./settings.sh
region=${ZONE%-*}
account=maskloop@$PROJECT.iam.gserviceaccount.com
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

g() { gcloud --quiet --project "$PROJECT" "$@"; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
there() { g "$@" >/dev/null 2>&1; }

say "Services of the project"
g services enable compute.googleapis.com storage.googleapis.com iam.googleapis.com iap.googleapis.com

say "An identity for the server; it owns nothing and has no key"
there iam service-accounts describe "$account" ||
  g iam service-accounts create maskloop --display-name "Maskloop's server"

say "An address that stays"
there compute addresses describe maskloop --region "$region" || g compute addresses create maskloop --region "$region"
address=$(g compute addresses describe maskloop --region "$region" --format 'value(address)')
labels=${LABELS_HOST:-labels.${address//./-}.sslip.io}
loop=${LOOP_HOST:-loop.${address//./-}.sslip.io}

say "Buckets: versions and deleted objects are kept for a while, nothing is public"
cat > "$work/lifecycle.json" <<JSON
{"rule": [
  {"action": {"type": "Delete"}, "condition": {"age": 60, "matchesPrefix": ["embeddings/"]}},
  {"action": {"type": "Delete"}, "condition": {"age": 365, "matchesPrefix": ["checks/"]}},
  {"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": 90, "isLive": false}}
]}
JSON
for bucket in "$SOURCE_BUCKET" "$TARGET_BUCKET" "$DVC_BUCKET"; do
  if ! there storage buckets describe "gs://$bucket"; then
    g storage buckets create "gs://$bucket" --location "$region"
  elif [ "$bucket" = "$SOURCE_BUCKET" ] && [ "$harden" = no ]; then
    echo "gs://$bucket exists and may serve others, so it stays as it is. --harden turns on versions, 7 days of deleted
objects and rights by bucket alone, and ends public access: who reads it by another way then no longer can. It is now:"
    g storage buckets describe "gs://$bucket" --format 'yaml(versioning_enabled,uniform_bucket_level_access,public_access_prevention,soft_delete_policy)'
    continue
  fi
  g storage buckets update "gs://$bucket" --versioning --uniform-bucket-level-access --public-access-prevention \
    --soft-delete-duration 7d
done
g storage buckets update "gs://$TARGET_BUCKET" --lifecycle-file "$work/lifecycle.json"

backup=/var/backups/maskloop.tar
if [ -n "${BACKUP_BUCKET:-}" ]; then
  backup=gs://$BACKUP_BUCKET/maskloop
  there storage buckets describe "gs://$BACKUP_BUCKET" || g storage buckets create "gs://$BACKUP_BUCKET" --location "$region"
  # What somebody deletes, on the server or in its name, can be had again for a month.
  g storage buckets update "gs://$BACKUP_BUCKET" --uniform-bucket-level-access --public-access-prevention \
    --soft-delete-duration 30d
fi

say "What the server may do: read photos; read and write labels, datasets and backups; no more"
may() { g storage buckets add-iam-policy-binding "gs://$1" --member "serviceAccount:$account" --role "$2" >/dev/null; }
may "$SOURCE_BUCKET" roles/storage.objectViewer
may "$TARGET_BUCKET" roles/storage.objectUser
may "$DVC_BUCKET" roles/storage.objectUser
[ -z "${BACKUP_BUCKET:-}" ] || may "$BACKUP_BUCKET" roles/storage.objectUser
for bucket in "$SOURCE_BUCKET" "$TARGET_BUCKET" "$DVC_BUCKET" ${BACKUP_BUCKET:-}; do
  may "$bucket" roles/storage.legacyBucketReader
done

say "Firewall: 443, and 80 which only redirects; to log in by SSH through Google's own tunnel"
there compute networks describe maskloop || g compute networks create maskloop --subnet-mode auto
rule() { there compute firewall-rules describe "$1" || g compute firewall-rules create "$@" --network maskloop --direction INGRESS; }
rule maskloop-web --allow tcp:443,tcp:80 --target-tags maskloop
rule maskloop-ssh --allow tcp:22 --source-ranges 35.235.240.0/20 --target-tags maskloop

say "The server"
setting() { printf '%s=%q\n' "$1" "$2"; } # as bash reads it, whatever is in it
{
  setting MASKLOOP_STORAGE_EMULATOR false
  setting MASKLOOP_LABELS_HOST "$labels"
  setting MASKLOOP_LOOP_HOST "$loop"
  setting MASKLOOP_TLS "email $EMAIL"
  setting MASKLOOP_SOURCE_BUCKET "$SOURCE_BUCKET"
  setting MASKLOOP_SOURCE_PREFIX "$SOURCE_PREFIX"
  setting MASKLOOP_CATALOG "$CATALOG"
  setting MASKLOOP_TARGET_BUCKET "$TARGET_BUCKET"
  setting MASKLOOP_DVC_BUCKET "$DVC_BUCKET"
  setting MASKLOOP_BACKUP "$backup"
  printf '%s\n' "${MORE:-}"
} > "$work/settings.env"
sed -e "s|@REPOSITORY@|$REPOSITORY|" -e "s|@REVISION@|$REVISION|" cloud-init.yaml > "$work/cloud-init.yaml"
from_files="user-data=$work/cloud-init.yaml,maskloop-settings=$work/settings.env"
was_there=$(there compute instances describe maskloop --zone "$ZONE" && echo yes || echo no)
if [ "$was_there" = yes ]; then
  g compute instances add-metadata maskloop --zone "$ZONE" --metadata-from-file "$from_files"
else
  g compute instances create maskloop --zone "$ZONE" --machine-type "$MACHINE" --network maskloop --address "$address" \
    --tags maskloop --service-account "$account" --scopes cloud-platform --image-family ubuntu-2404-lts-amd64 \
    --image-project ubuntu-os-cloud --boot-disk-size "${DISK_GB}GB" --boot-disk-type pd-balanced \
    --shielded-secure-boot --metadata enable-oslogin=TRUE,block-project-ssh-keys=TRUE \
    --metadata-from-file "$from_files"
fi

say "A snapshot of its disk every night, kept for two weeks"
there compute resource-policies describe maskloop --region "$region" ||
  g compute resource-policies create snapshot-schedule maskloop --region "$region" --daily-schedule --start-time 03:00 \
    --max-retention-days 14 --on-source-disk-delete apply-retention-policy
g compute disks add-resource-policies maskloop --zone "$ZONE" --resource-policies maskloop 2>/dev/null ||
  there compute disks describe maskloop --zone "$ZONE" # it has the schedule already

if [ "$was_there" = yes ]; then
  say "The server takes the settings; services that they concern start anew, the others go on"
  g compute ssh maskloop --zone "$ZONE" --tunnel-through-iap --command "sudo systemctl reload-or-restart --no-block maskloop"
  exit
fi

cat <<TEXT

The server installs itself now, which takes about a quarter of an hour. To watch it, or when nothing opens after that:
  gcloud compute ssh maskloop --project $PROJECT --zone $ZONE --tunnel-through-iap -- sudo tail -f /var/log/cloud-init-output.log
Meanwhile let these two names point to $address (nothing to do for names below sslip.io):

  $labels   for everybody who labels
  $loop     for engineers: Airflow, and MLflow below /mlflow

The first passwords, once it is there:
  gcloud compute ssh maskloop --project $PROJECT --zone $ZONE --tunnel-through-iap -- sudo /opt/maskloop/deploy/maskloop passwords
TEXT

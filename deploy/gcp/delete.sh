#!/usr/bin/env bash
# Take away what create.sh made. Buckets and snapshots stay, with all photos, labels and datasets; `--with-data` takes all
# but the photos.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=settings.sh.example
. ./settings.sh
region=${ZONE%-*}
g() { gcloud --quiet --project "$PROJECT" "$@"; }
gone() { g "$@" 2>/dev/null || echo "not there: $*"; }

gone compute instances delete maskloop --zone "$ZONE"
gone compute resource-policies delete maskloop --region "$region"
gone compute firewall-rules delete maskloop-web
gone compute firewall-rules delete maskloop-ssh
gone compute networks delete maskloop
gone compute addresses delete maskloop --region "$region"
gone iam service-accounts delete "maskloop@$PROJECT.iam.gserviceaccount.com"
snapshots=$(g compute snapshots list --filter "sourceDisk ~ /disks/maskloop$" --format "value(name)")
if [ "${1:-}" = --with-data ]; then
  read -r -p "This deletes every label and dataset in gs://$TARGET_BUCKET and gs://$DVC_BUCKET, and all snapshots${BACKUP_BUCKET:+ and backups} of the server. Type the project's name to go on: " answer
  [ "$answer" = "$PROJECT" ] || { echo "nothing in the buckets was deleted, and no snapshot"; exit 1; }
  for bucket in "$TARGET_BUCKET" "$DVC_BUCKET" ${BACKUP_BUCKET:-}; do gone storage rm --recursive "gs://$bucket"; done
  for snapshot in $snapshots; do gone compute snapshots delete "$snapshot"; done
  echo "Kept: gs://$SOURCE_BUCKET with the photos."
else
  echo "Kept: gs://$SOURCE_BUCKET, gs://$TARGET_BUCKET, gs://$DVC_BUCKET${BACKUP_BUCKET:+, gs://$BACKUP_BUCKET}."
  [ ! "$snapshots" ] || printf 'Kept as well, they cost money and hold every password until you delete them (or say --with-data):\n%s\n' "$snapshots"
fi

#!/usr/bin/env bash
# Take away what create.sh made. Buckets stay, with all photos, labels and datasets, unless told `--with-data`.
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
if [ "${1:-}" = --with-data ]; then
  read -r -p "This deletes every label and dataset in gs://$TARGET_BUCKET and gs://$DVC_BUCKET. Type the project's name to go on: " answer
  [ "$answer" = "$PROJECT" ] || { echo "nothing in the buckets was deleted"; exit 1; }
  for bucket in "$TARGET_BUCKET" "$DVC_BUCKET"; do gone storage rm --recursive "gs://$bucket"; done
fi
echo "Kept: gs://$SOURCE_BUCKET and, unless you said --with-data, the other two; snapshots of the disk for two weeks."

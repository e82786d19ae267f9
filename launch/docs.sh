#!/usr/bin/env bash
# Builds the site into ./site, offline and strictly: a broken link fails. It opens from disk: site/index.html.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
NO_MKDOCS_2_WARNING=1 mkdocs build --quiet "$@"
echo "site/index.html"

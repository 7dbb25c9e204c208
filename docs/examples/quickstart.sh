#!/bin/sh
# Everything one photo has to give, with curl: sh docs/examples/quickstart.sh [PHOTO] [SERVER]
set -eu
photo=${1:-tests/photos/cat.jpg}
server=${2:-http://localhost:8000}

# What is in it? The reply names the photo; later requests need not send it again.
reply=$(curl --silent --fail-with-body --form "file=@$photo" "$server/segment")
image=$(printf '%s' "$reply" | sed 's/.*"image":{"id":"\([0-9a-f]*\)".*/\1/')
echo "photo $image"

# The mask, the heatmap of a class, a pseudo-label from known tags, and all of it as arrays.
curl --silent --fail-with-body --output mask.png "$server/segment?image=$image&format=png"
curl --silent --fail-with-body --output heat.jpg "$server/cam?class=cat&image=$image&format=overlay"
curl --silent --fail-with-body --output label.png "$server/pseudo-label?tags=cat&refine=pamr&image=$image"
curl --silent --fail-with-body --output all.npz "$server/analyze?image=$image&format=npz"
curl --silent --fail-with-body --output coco.json "$server/segment?image=$image&format=coco"
ls mask.png heat.jpg label.png all.npz coco.json

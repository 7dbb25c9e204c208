#!/bin/sh
# Everything one photo has to give, with curl: sh docs/examples/quickstart.sh [PHOTO] [SERVER] [CLASS]
set -eu
photo=${1:-tests/photos/cat.jpg}
server=${2:-http://localhost:8000}
class=${3:-cat}

# What is in it? The reply names the photo; later requests need not send it again.
reply=$(curl --silent --show-error --fail-with-body --form "file=@$photo" "$server/segment") || {
    printf '%s\n' "$reply" >&2  # a problem document says what is wrong and what to do
    exit 1
}
image=$(printf '%s' "$reply" | sed 's/.*"image":{"id":"\([0-9a-f]*\)".*/\1/')
echo "photo $image"

# A result, or the reason why there is none.
get() {
    curl --silent --show-error --fail-with-body --output "$1.partial" "$server$2" || {
        [ ! -f "$1.partial" ] || { cat "$1.partial" >&2; rm "$1.partial"; }
        exit 1
    }
    mv "$1.partial" "$1"
}

# The mask, the heatmap of a class, a pseudo-label from known tags, and all of it as arrays.
get mask.png "/segment?image=$image&format=png"
get heat.jpg "/cam?class=$class&image=$image&format=overlay"
get label.png "/pseudo-label?tags=$class&refine=pamr&image=$image"
get all.npz "/analyze?image=$image&format=npz"
get coco.json "/segment?image=$image&format=coco"
ls mask.png heat.jpg label.png all.npz coco.json

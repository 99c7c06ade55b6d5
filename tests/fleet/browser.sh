# shellcheck shell=bash
# The page in a browser, on a phone and on a screen, light and dark; part of test_page.sh, whose variables it uses.
# shellcheck disable=SC2154
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
true_that "a browser is installed" test -n "$browser"
for width in 390 1280; do
    for scheme in 1 0; do # light, dark
        timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/browser" --no-first-run \
            --window-size=$width,2000 --blink-settings=preferredColorScheme=$scheme --virtual-time-budget=6000 --dump-dom \
            "http://127.0.0.1:$http/" >"$folder/dom" 2>"$folder/err.browser"
        same "$width pixels: sites in the page" "$(grep -o '<th scope="row">edge-[0-9]*' "$folder/dom" | wc -l)" $sites
        true_that "$width pixels: who is awaited, or has reported" grep -qE ">(awaited|reported)<" "$folder/dom"
        true_that "$width pixels: curves" grep -q '<path class="line" d="M[0-9]' "$folder/dom"
        true_that "$width pixels: rounds" grep -q 'everybody asked reported' "$folder/dom"
        true_that "$width pixels: nothing is wrong" grep -q '<p class="warn" id="warn" role="status" hidden="">' "$folder/dom"
    done
done

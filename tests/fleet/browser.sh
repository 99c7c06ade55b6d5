# shellcheck shell=bash
# A page in a browser, on a phone and on a screen, light and dark: of the cloud or of an edge, as the argument says; part
# of test_page.sh, whose variables it uses. FEDSTILL_SCREENSHOTS: a folder for pictures of them.
# shellcheck disable=SC2154
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
true_that "a browser is installed" test -n "$browser"
look_at_cloud() { # WIDTH
    same "$1 pixels: sites in the page" "$(grep -o '<th scope="row">edge-[0-9]*' "$folder/dom" | wc -l)" $sites
    true_that "$1 pixels: who is awaited, or has reported" grep -qE ">(awaited|reported)<" "$folder/dom"
    true_that "$1 pixels: curves" grep -q '<path class="line" d="M[0-9]' "$folder/dom"
    true_that "$1 pixels: rounds" grep -q 'everybody asked reported' "$folder/dom"
    true_that "$1 pixels: no devices" grep -q '<section class="edge" hidden="">' "$folder/dom"
}
look_at_edge() { # WIDTH
    same "$1 pixels: devices in the page" "$(grep -o '<th scope="row">device-[0-9]*' "$folder/dom")" '<th scope="row">device-1'
    true_that "$1 pixels: who this is" grep -q '<h1 id="task">edge-1 · cascade<' "$folder/dom"
    true_that "$1 pixels: how many were answered" grep -q "<strong id=\"answered\">$all<" "$folder/dom"
    true_that "$1 pixels: how many were sent on" grep -q "$there of $all windows" "$folder/dom"
    true_that "$1 pixels: latency" grep -qE '<strong id="p50">[0-9.]+&nbsp;m?s<' "$folder/dom"
    true_that "$1 pixels: no sites" grep -q '<section class="cloud" hidden="">' "$folder/dom"
}
for width in 390 1280; do
    for scheme in 1 0; do # light, dark
        show=("$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/browser" --no-first-run
            --window-size=$width,2000 --blink-settings=preferredColorScheme=$scheme --virtual-time-budget=6000)
        timeout 60 "${show[@]}" --dump-dom "http://127.0.0.1:$http/" >"$folder/dom" 2>"$folder/err.browser"
        "look_at_$1" $width
        true_that "$width pixels: nothing is wrong" grep -q '<p class="warn" id="warn" role="status" hidden="">' "$folder/dom"
        [ -z "${FEDSTILL_SCREENSHOTS:-}" ] || timeout 60 "${show[@]}" \
            --screenshot="$FEDSTILL_SCREENSHOTS/$1-$width-$scheme.png" "http://127.0.0.1:$http/" 2>/dev/null
    done
done

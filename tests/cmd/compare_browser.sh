# shellcheck shell=bash
# The page of a comparison in a browser, on a phone and on a screen, light and dark; part of test_compare.sh, whose variables
# it uses. What the page says of its own width comes from a script that is added to a copy of it.
# shellcheck disable=SC2154
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
true_that "a browser is installed" test -n "$browser"
sed 's#</body>#<script>document.body.setAttribute("data-wide",document.documentElement.scrollWidth);document.body.setAttribute("data-back",getComputedStyle(document.documentElement).backgroundColor)</script></body>#' \
    page.html >measured.html
for width in 500 1280; do # headless windows are not narrower than 500; a frame is
    for scheme in 1 0; do # light, dark
        timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/browser" --no-first-run \
            --window-size=$width,2000 --blink-settings=preferredColorScheme=$scheme --virtual-time-budget=3000 --dump-dom \
            "file://$folder/measured.html" >"$folder/dom" 2>"$folder/err.browser"
        wide=$(sed -n 's/.*data-wide="\([0-9]*\)".*/\1/p' "$folder/dom")
        true_that "$width pixels: the page is ${wide:-0} wide" test "${wide:-9999}" -le $width
        back=$(sed -n 's/.*data-back="\([^"]*\)".*/\1/p' "$folder/dom")
        same "$width pixels, scheme $scheme: the background" "$back" "$([ $scheme = 1 ] && echo 'rgb(255, 255, 255)' || echo 'rgb(18, 22, 27)')"
        true_that "$width pixels: columns can be sorted" grep -q '<th scope="col"[^>]* title="Sort"' "$folder/dom"
    done
done
printf '<!DOCTYPE html><iframe src="measured.html" style="width:390px;height:2000px;border:0"></iframe><script>onload=function(){document.body.setAttribute("data-frame",frames[0].document.documentElement.scrollWidth)}</script>' >frame.html
timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/browser" --no-first-run --allow-file-access-from-files \
    --virtual-time-budget=3000 --dump-dom "file://$folder/frame.html" >"$folder/dom" 2>"$folder/err.browser"
wide=$(sed -n 's/.*data-frame="\([0-9]*\)".*/\1/p' "$folder/dom")
true_that "390 pixels: the page is ${wide:-0} wide" test "${wide:-9999}" -le 390

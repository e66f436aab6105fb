# TAP on standard input, a JUnit file on standard output. What follows a failed test as comment is its text.
function escape(text) {
    gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text); gsub(/"/, "\\&quot;", text)
    gsub(/[\001-\010\013-\037]/, "", text)
    return text
}
function finish() {
    if (name == "") return
    suite = name; sub(/: .*/, "", suite)
    title = name; sub(/^[^:]*: /, "", title)
    told = failed ? "<failure>" escape(text) "</failure>" : skipped ? "<skipped message=\"" escape(reason) "\"/>" : ""
    # mawk's sprintf takes 8 KiB at most.
    cases = cases "  <testcase classname=\"" escape(suite) "\" name=\"" escape(title) "\" time=\"" \
        sprintf("%.3f", ms / 1000) "\">" told "</testcase>\n"
    count++; failures += failed; skips += skipped; name = ""
}
/^(not )?ok [0-9]+/ {
    finish()
    failed = /^not /; skipped = / # SKIP /; text = ""; ms = 0
    reason = $0; sub(/.* # SKIP /, "", reason)
    name = $0; sub(/^(not )?ok [0-9]+( - )?/, "", name); sub(/ # SKIP .*/, "", name)
}
/^ +duration_ms: / { ms = $2 }
/^Bail out!/ { finish(); name = $0; sub(/^Bail out! setup of /, "", name); name = name ": setup"; failed = 1; skipped = 0; text = "" }
/^# / { text = text substr($0, 3) "\n" }
END {
    finish()
    printf "<?xml version=\"1.0\"?>\n<testsuite name=\"cofferdam\" tests=\"%d\" failures=\"%d\" skipped=\"%d\">\n", \
        count, failures, skips
    print cases "</testsuite>"
}

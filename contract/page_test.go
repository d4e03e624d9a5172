package contract

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/contract.md as it was seen")

const page = "../docs/contract.md"

// checkPage compares docs/contract.md with the answers of the servers.
func checkPage(t *testing.T, x *seen) {
	t.Helper()
	want := 0
	for _, part := range list {
		want += len(part.expectations) * len(servers) * len(schemes)
	}
	if len(x.answers) != want || len(x.transcripts) != len(transcripts) {
		t.Logf("%d of %d answers: the page is not compared", len(x.answers), want)
		return
	}
	if t.Failed() {
		t.Log("the page is not compared: answers differ from the list")
		return
	}
	text, err := x.page()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(old) != text {
		t.Errorf("docs/contract.md does not say what was seen; run again with -update\n%s", firstDifference(string(old), text))
	}
}

func firstDifference(old, text string) string {
	was, is := strings.Split(old, "\n"), strings.Split(text, "\n")
	for i := range min(len(was), len(is)) {
		if was[i] != is[i] {
			return fmt.Sprintf("line %d:\n- %s\n+ %s", i+1, was[i], is[i])
		}
	}
	return fmt.Sprintf("%d lines, not %d", len(was), len(is))
}

const head = `# Contract with S3 and STS

s3sink expects these answers of S3 and STS. Each row was tried, over http and https, with

- **s3sinktest**, the double in this repository,
- **versitygw** %s,
- **MinIO** %s,
- **Ceph** %s: Debian 12's radosgw with its STS on, a monitor, and a store in memory.

**No row was run against AWS itself.** The column "AWS" has the answers in AWS's documentation or,
where a footnote says so, in published error reports. A ✓ is the same answer as in that column.
Other answers are deviations, and the list of tests states each of them. A deviation that disappears
fails the tests, and so does a new one. The double has no deviations. With 501 or 405 it refuses
functions that its documentation excludes.

The following command repeats the tests. It needs only Go. It takes up to nine minutes at first, to
build the servers, and less than one minute later:

    cd contract && GOWORK=off go test -count=1

Ceph takes part if it is installed:
` + "`apt-get install --no-install-recommends " + cephPackages + "`" + `. Otherwise the tests print
` + "`SKIP Ceph`" + `, and its column shows the list's own statements.

With ` + "`-update`" + ` the command writes this page. Without it, the command fails if the page differs from
the answers.
`

func (x *seen) page() (string, error) {
	gateway, err := pinned("versitygw", "github.com/versity/versitygw")
	if err != nil {
		return "", err
	}
	store, err := pinned("minio", "github.com/minio/minio")
	if err != nil {
		return "", err
	}
	var columns []string
	for _, s := range servers {
		columns = append(columns, s.column)
	}
	rule := strings.Repeat("---|", 2+len(columns))
	var b strings.Builder
	fmt.Fprintf(&b, head, gateway, store, cephVersion)
	var notes []string
	for _, part := range list {
		fmt.Fprintf(&b, "\n## %s\n\n%s| | %s | %s |\n|%s\n", part.title, part.intro, part.says, strings.Join(columns, " | "), rule)
		for _, e := range part.expectations {
			mark := ""
			if e.note != "" {
				notes, mark = footnote(notes, e.note)
			}
			fmt.Fprintf(&b, "| %s%s | %s |", escape(e.name), mark, escape(e.aws))
			for _, column := range columns {
				fmt.Fprintf(&b, " %s |", escape(x.cell(e, column)))
			}
			b.WriteString("\n")
		}
	}
	b.WriteString(aboutTranscripts)
	for _, tr := range transcripts {
		b.WriteString(x.transcripts[tr.column])
	}
	b.WriteString("\n")
	for i, note := range notes {
		fmt.Fprintf(&b, "[^%d]: %s\n", i+1, escape(note))
	}
	return b.String(), nil
}

// footnote returns the notes, with note added if it is new, and the mark of note.
func footnote(notes []string, note string) ([]string, string) {
	for i, n := range notes {
		if n == note {
			return notes, fmt.Sprintf("[^%d]", i+1)
		}
	}
	return append(notes, note), fmt.Sprintf("[^%d]", len(notes)+1)
}

// cell returns the answers of a server over http and https.
func (x *seen) cell(e expectation, column string) string {
	says := func(scheme string) string {
		answer := x.answers[cell{e.name, column, scheme}]
		if answer == e.aws {
			return "✓"
		}
		return answer
	}
	if says("http") == says("https") {
		return says("http")
	}
	return "http: " + says("http") + "; https: " + says("https")
}

var escape = strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "~", `\~`).Replace

// pinned returns the version of the module that a server is built from.
func pinned(module, path string) (string, error) {
	text, err := os.ReadFile(filepath.Join("servers", module, "go.mod"))
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(regexp.QuoteMeta(path) + ` (v\S+)`).FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("servers/%s/go.mod does not require %s", module, path)
	}
	return string(found[1]), nil
}

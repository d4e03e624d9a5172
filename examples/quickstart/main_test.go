package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/clitest"
	"github.com/s3sink/s3sink/s3sinktest"
)

func TestMain(m *testing.M) {
	clitest.SetEnvironment()
	os.Exit(m.Run())
}

// start runs the program with flags.
func start(t *testing.T, stdin io.Reader, args ...string) clitest.Result {
	t.Helper()
	return clitest.Run(func(stdout, stderr io.Writer) int {
		return run(t.Context(), args, stdin, stdout, stderr)
	})
}

// unreadable is a standard input that the program must not read.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("standard input was read without -stdin")
	return 0, io.EOF
}

// Given no flags except -keep and -prefix, when the program runs, then all
// samples arrive, and the kept files hold calls of all six types and the GitHub
// events.
func TestQuickstart_Samples(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, unreadable{t}, "-keep", dir, "-prefix", "a/b c")
	r.Want(t, 0, "events in 1030 = events out 1030 ✓", "with an external id", "in 2 objects",
		"gunzip -c '"+dir+"/a/b c/segment-logs/quickstart/")
	if r.Stderr != "" {
		t.Errorf("stderr %q, want nothing", r.Stderr)
	}

	types := map[string]int{}
	github := 0
	for key, lines := range readKept(t, dir) {
		for _, line := range lines {
			var event struct {
				Type, MessageID, ReceivedAt, ID string
			}
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatal(err)
			}
			switch {
			case strings.Contains(key, "/segment-logs/github/") && event.ID != "":
				github++
			case strings.Contains(key, "/segment-logs/quickstart/") && event.MessageID != "" && event.ReceivedAt != "":
				types[event.Type]++
			default:
				t.Errorf("%s has %s", key, line)
			}
		}
	}
	want := []string{"alias", "group", "identify", "page", "screen", "track"}
	if got := slices.Sorted(maps.Keys(types)); !slices.Equal(got, want) || github != 30 {
		t.Errorf("got types %v and %d GitHub events, want %v and 30", types, github, want)
	}
}

// readKept returns the lines of every file under dir by file name. It fails the
// test unless each file is exactly one gzip member.
func readKept(t *testing.T, dir string) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		packed := bytes.NewReader(data)
		r, err := gzip.NewReader(packed)
		if err != nil {
			return err
		}
		r.Multistream(false)
		raw, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if packed.Len() > 0 {
			t.Errorf("%s: %d bytes after the gzip member", name, packed.Len())
		}
		files[filepath.ToSlash(name)] = strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Given 5002 events and 11 other lines on standard input, when the program runs
// with -stdin, then it reports the other lines and the events arrive unchanged.
func TestQuickstart_StandardInput(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	var want []string
	for i := range 5000 {
		line := fmt.Sprintf(`{"n":%d,"text":"Grüße <&>"}`, i)
		want = append(want, line)
		switch {
		case i%1000 == 1:
			line = "  " + line + "\t\r" // Windows line ending
		case i%1000 == 2:
			line += "\n\nnot JSON"
		case i%1000 == 3:
			line += "\n[" + line + "]"
		}
		in.WriteString(line + "\n")
	}
	in.WriteString(`{"long":"` + strings.Repeat("x", 3<<20) + "\"}\n")
	in.WriteString("{\"between\":\r1}\n")
	in.WriteString(`{"last":"without a newline"}`)
	want = append(want, `{"between":1}`, `{"last":"without a newline"}`)

	dir := t.TempDir()
	r := start(t, strings.NewReader(in.String()), "-stdin", "-source", "shop/1", "-keep", dir)
	r.Want(t, 0, "events in 5002 = events out 5002 ✓", "11 lines skipped",
		"line 5 skipped: ", "not valid JSON", "line 7 skipped: ", "is an array", "further skipped lines are not reported")

	var got []string
	for _, lines := range readKept(t, dir) {
		got = append(got, lines...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d lines differ from the %d that went in", len(got), len(want))
	}
}

// Given a line longer than an event may be, when the program reads it, then it
// skips that line and sends the others.
func TestQuickstart_LongLine(t *testing.T) {
	t.Parallel()
	long := `{"long":"` + strings.Repeat("x", 3<<20) + `"}`
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"in the middle": {`{"a":1}` + "\n" + long + "\n" + `{"b":2}`, []string{"line 2 skipped: longer than", "events in 2 = events out 2"}},
		"at the end":    {`{"a":1}` + "\n" + long, []string{"line 2 skipped: longer than", "events in 1 = events out 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start(t, strings.NewReader(c.in), "-stdin").Want(t, 0, c.want...)
		})
	}
}

// Given 20 objects, then the report lists all. Given 21, then it lists the
// first five and the last three.
func TestPrintObjects_LongList(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{
		20: "Objects key k01 k02 k03 k04 k05 k06 k07 k08 k09 k10 k11 k12 k13 k14 k15 k16 k17 k18 k19 k20 in 20 objects",
		21: "Objects key k01 k02 k03 k04 k05 … 13 more k19 k20 k21 in 21 objects",
	} {
		var objects []s3sink.ObjectInfo
		for i := range n {
			objects = append(objects, s3sink.ObjectInfo{Key: fmt.Sprintf("k%02d", n-i), Events: 1, Bytes: 10, RawBytes: 20})
		}
		var out strings.Builder
		printObjects(&out, "Objects", objects)
		var got []string
		for row := range strings.Lines(out.String()) {
			row = strings.TrimSpace(row)
			got = append(got, row[strings.LastIndex(row, "  ")+1:])
		}
		if got := strings.Join(strings.Fields(strings.Join(got, " ")), " "); got != want {
			t.Errorf("got %q, want %q in:\n%s", got, want, out.String())
		}
	}
}

// Given a program that waits for standard input, when it is interrupted, then
// the events that it has read arrive.
func TestQuickstart_Interrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	stdin, writer := io.Pipe()
	go func() {
		io.WriteString(writer, "{\"a\":1}\n{\"b\":2}\n")
		io.WriteString(writer, "") // returns when the lines above have been read
		interrupt()                // while the program waits for a third line
	}()
	t.Cleanup(func() { writer.Close() })
	clitest.Run(func(stdout, stderr io.Writer) int {
		return run(ctx, []string{"-stdin"}, stdin, stdout, stderr)
	}).Want(t, 0, "interrupted", "✓")
}

// Given a bucket and a role, when the program runs twice, then it writes as the
// role, and each run reads back only its own objects.
func TestQuickstart_Bucket(t *testing.T) {
	t.Parallel()
	server, flags := clitest.StartServer(t)
	for range 2 { // the second run finds the objects of the first
		start(t, nil, flags...).Want(t, 0, "role "+clitest.Role, "events in 1030 = events out 1030 ✓",
			"aws s3 cp s3://acme-events/raw/segment-logs/github/", "--endpoint-url "+server.URL())
	}
	if n := len(server.Objects(clitest.Bucket)); n != 4 {
		t.Errorf("%d objects in the bucket, want 4", n)
	}
}

// Given a reader without permission to list or get objects, when the program
// runs, then it succeeds and reports what S3 acknowledged.
func TestQuickstart_ReadDenied(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"ListObjectsV2", "GetObject"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			server, flags := clitest.StartServer(t)
			server.Inject(s3sinktest.Fault{Operation: operation, Status: 403, Code: "AccessDenied"})
			start(t, nil, flags...).Want(t, 0, "acknowledged by S3 1030; NOT READ BACK", "s3:ListBucket",
				"raw/segment-logs/quickstart/", "aws s3 cp")
		})
	}
}

// Given a fault of S3 or STS, when the program runs, then it fails and names
// the fault.
func TestQuickstart_Failures(t *testing.T) {
	t.Parallel()
	other := []byte(`{"messageId":"somebody else's"}` + "\n")
	for name, c := range map[string]struct {
		fault s3sinktest.Fault
		want  []string
	}{
		"an object is missing": {
			s3sinktest.Fault{Operation: "ListObjectsV2", Times: 1, Status: 200, ContentType: "application/xml",
				Body: []byte(`<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>`)},
			[]string{"NOT THE SAME", "not in the bucket: raw/segment-logs/github/"},
		},
		"an object was deleted": {
			s3sinktest.Fault{Operation: "GetObject", Status: 404, Code: "NoSuchKey"},
			[]string{"NOT READ BACK", "NoSuchKey"},
		},
		"an object holds other events": {
			s3sinktest.Fault{Operation: "GetObject", Times: 1, Status: 200, Body: pack(t, bytes.Repeat(other, 30))},
			[]string{"NOT THE SAME", "source github: in 30, out 30, compared by the whole line ✗"},
		},
		"an object is cut off": {
			s3sinktest.Fault{Operation: "GetObject", Times: 1, Status: 200, Body: pack(t, other)[:20]},
			[]string{"unexpected EOF"},
		},
		"an object has a second member": {
			s3sinktest.Fault{Operation: "GetObject", Times: 1, Status: 200, Body: append(pack(t, other), pack(t, other)...)},
			[]string{"the object has bytes after its gzip member"},
		},
		"S3 refuses": {
			s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied", Message: "not you"},
			[]string{"AccessDenied", "not you", "1030 events were dropped", "events in 1030, events out 0"},
		},
		"STS refuses": {
			s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Code: "AccessDenied"},
			[]string{"AccessDenied", "events in 1030, events out 0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, flags := clitest.StartServer(t)
			server.Inject(c.fault)
			start(t, nil, flags...).Want(t, 1, c.want...)
		})
	}
}

func pack(t *testing.T, raw []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// Given invalid flags, when the program starts, then it fails with an error
// that names the flag and does not read standard input.
func TestQuickstart_InvalidFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-":                             "use -stdin",
		"events.ndjson":                 `unexpected argument "events.ndjson"`,
		"-role " + clitest.Role:         "need -bucket",
		"-external-id x":                "need -role",
		"-source github":                "choose another",
		"-level 10 -max-object-age 1ms": "CompressionLevel",
		"-nonsense":                     "-nonsense",
		"-bucket s3://acme":             "not a URI",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			start(t, unreadable{t}, strings.Fields(args)...).Want(t, 1, want)
		})
	}
}

// Given -h, then the help goes to standard output.
func TestQuickstart_Help(t *testing.T) {
	t.Parallel()
	r := start(t, unreadable{t}, "-h")
	r.Want(t, 0, "go run ./examples/quickstart", "-external-id ID", "-keep DIR")
	if r.Stderr != "" {
		t.Errorf("stderr %q, want nothing", r.Stderr)
	}
}

// Given a -keep that is a file, when the program runs, then it sends the events
// and fails with the name of the file.
func TestQuickstart_KeepIsFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, nil, "-keep", file).Want(t, 1, "NOT READ BACK", file)
}

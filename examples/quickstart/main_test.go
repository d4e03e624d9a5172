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
	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	testKey    = "AKIAQUICKSTARTTEST00"
	testSecret = "quickstart/test/secret"
	testUser   = "arn:aws:iam::111122223333:user/quickstart-test"
	testRole   = "arn:aws:iam::111122223333:role/team/QuickstartTest"
)

// TestMain makes an AWS environment of the one that the tests run in, so that
// -bucket finds the test's user and nobody else.
func TestMain(m *testing.M) {
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "AWS_") {
			os.Unsetenv(name)
		}
	}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":           testKey,
		"AWS_SECRET_ACCESS_KEY":       testSecret,
		"AWS_CONFIG_FILE":             os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED":   "true",
	} {
		os.Setenv(name, value)
	}
	os.Exit(m.Run())
}

// result is what a run left behind.
type result struct {
	code           int
	stdout, stderr string
}

func start(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, stdin, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("output lacks %q", text)
		}
	}
	if t.Failed() {
		t.Fatalf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
}

// unreadable is standard input that must be left alone.
type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("standard input was read without -stdin")
	return 0, io.EOF
}

func TestSamples(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, unreadable{t}, "-keep", dir, "-prefix", "a/b c")
	r.want(t, 0, "events in 1030 = events out 1030 ✓", "with an external id", "in 2 objects",
		"gunzip -c '"+dir+"/a/b c/segment-logs/quickstart/")
	if r.stderr != "" {
		t.Errorf("stderr %q, want nothing", r.stderr)
	}

	types := map[string]int{}
	github := 0
	for key, lines := range kept(t, dir) {
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

// kept returns the lines of every file under dir, each of which must be one
// gzip member and nothing else.
func kept(t *testing.T, dir string) map[string][]string {
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
			t.Errorf("%s: %d bytes behind the gzip member", name, packed.Len())
		}
		files[filepath.ToSlash(name)] = strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestStandardInput(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	var want []string
	for i := range 5000 {
		line := fmt.Sprintf(`{"n":%d,"text":"Grüße <&>"}`, i)
		want = append(want, line)
		switch {
		case i%1000 == 1:
			line = "  " + line + "\t\r" // as files from Windows have it
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
	r.want(t, 0, "events in 5002 = events out 5002 ✓", "11 lines skipped",
		"line 5 skipped: ", "not valid JSON", "line 7 skipped: ", "is an array", "more lines skipped")

	var got []string
	for _, lines := range kept(t, dir) {
		got = append(got, lines...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d lines differ from the %d that went in", len(got), len(want))
	}
}

func TestLongLineIsSkipped(t *testing.T) {
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
			start(t, strings.NewReader(c.in), "-stdin").want(t, 0, c.want...)
		})
	}
}

func TestManyObjectsAreShortened(t *testing.T) {
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

func TestInterrupt(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	stdin, writer := io.Pipe()
	go func() {
		io.WriteString(writer, "{\"a\":1}\n{\"b\":2}\n")
		io.WriteString(writer, "") // returns when the lines above have been read
		interrupt()                // while the program waits for a third line
	}()
	t.Cleanup(func() { writer.Close() })
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"-stdin"}, stdin, &stdout, &stderr)
	result{code, stdout.String(), stderr.String()}.want(t, 0, "interrupted", "✓")
}

// bucket starts a server outside the program, which -bucket then finds as it
// would find AWS, and returns the flags for it.
func bucket(t *testing.T) (*s3sinktest.Server, []string) {
	t.Helper()
	server := s3sinktest.NewServer()
	t.Cleanup(server.Close)
	server.CreateBucket("acme-events", "eu-central-1")
	server.AddUser(s3sinktest.User{ARN: testUser, AccessKeyID: testKey, SecretAccessKey: testSecret})
	server.AddRole(s3sinktest.Role{
		ARN: testRole, TrustedPrincipals: []string{testUser}, ExternalID: "acme-42",
		Actions: []string{"s3:PutObject"},
	})
	return server, []string{
		"-bucket", "acme-events/raw", "-region", "eu-central-1", "-endpoint", server.URL(),
		"-role", testRole, "-external-id", "acme-42", "-sts-endpoint", server.URL(),
	}
}

func TestRealBucket(t *testing.T) {
	t.Parallel()
	server, flags := bucket(t)
	for range 2 { // the second run finds the objects of the first
		start(t, nil, flags...).want(t, 0, "role "+testRole, "events in 1030 = events out 1030 ✓",
			"aws s3 cp s3://acme-events/raw/segment-logs/github/", "--endpoint-url "+server.URL())
	}
	if n := len(server.Objects("acme-events")); n != 4 {
		t.Errorf("%d objects in the bucket, want 4", n)
	}
}

func TestNotAllowedToRead(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"ListObjectsV2", "GetObject"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			server, flags := bucket(t)
			server.Inject(s3sinktest.Fault{Operation: operation, Status: 403, Code: "AccessDenied"})
			start(t, nil, flags...).want(t, 0, "acknowledged by S3 1030; NOT READ BACK", "s3:ListBucket",
				"raw/segment-logs/quickstart/", "aws s3 cp")
		})
	}
}

func TestSomethingIsWrong(t *testing.T) {
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
		"an object has gone": {
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
			[]string{"something behind the gzip member"},
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
			server, flags := bucket(t)
			server.Inject(c.fault)
			start(t, nil, flags...).want(t, 1, c.want...)
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

func TestBadFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-":                             "use -stdin",
		"events.ndjson":                 `unexpected argument "events.ndjson"`,
		"-role " + testRole:             "need -bucket",
		"-external-id x":                "need -role",
		"-source github":                "choose another",
		"-level 10 -max-object-age 1ms": "CompressionLevel",
		"-nonsense":                     "-nonsense",
		"-bucket s3://acme":             "not a URI",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			start(t, unreadable{t}, strings.Fields(args)...).want(t, 1, want)
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	r := start(t, unreadable{t}, "-h")
	r.want(t, 0, "go run ./examples/quickstart", "-external-id ID", "-keep DIR")
	if r.stderr != "" {
		t.Errorf("stderr %q, want nothing", r.stderr)
	}
}

func TestUnwritableKeep(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, nil, "-keep", file).want(t, 1, "NOT READ BACK", file)
}

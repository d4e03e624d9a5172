package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/examples/internal/terminal"
	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	testKey    = "AKIASETUPTEST0000000"
	testSecret = "setup/test/secret"
	testUser   = "arn:aws:iam::210987654321:user/setup-test"
	testRole   = "arn:aws:iam::123456789012:role/team/SetupTest"
	testKMSKey = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// TestMain makes an AWS environment of the one that the tests run in, so that
// -bucket finds the test's user and nobody else.
func TestMain(m *testing.M) {
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		if strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "RUDDER_") {
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

func start(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, &stdout, &stderr)
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
	if strings.Contains(r.stdout+r.stderr, "\x1b") {
		t.Error("escape codes in a pipe")
	}
	if strings.Contains(r.stdout+r.stderr, testSecret) {
		t.Error("a secret in the output")
	}
	if t.Failed() {
		t.Fatalf("stdout:\n%s\nstderr:\n%s", r.stdout, r.stderr)
	}
}

// decode returns the one JSON object of standard output.
func (r result) decode(t *testing.T) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		t.Fatalf("%v in\n%s", err, r.stdout)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("something behind the object (%v):\n%s", err, r.stdout)
	}
	return object
}

// server starts a server outside the program, which -bucket then finds as it
// would find AWS, and returns the flags for it.
func server(t *testing.T) (*s3sinktest.Server, []string) {
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

// The demonstration, in a bubble: where Validate waits, no time passes.
func demoRun(t *testing.T, args ...string) (r result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { r = start(t, args...) })
	return r
}

func TestDemonstration(t *testing.T) {
	t.Parallel()
	r := demoRun(t)
	r.want(t, 0, `"sts:ExternalId": [`)
	if r.stderr != "" {
		t.Errorf("stderr %q, want nothing", r.stderr)
	}
	rest := r.stdout
	for _, text := range []string{
		"# permissions of " + demoCaller, "# trust policy of " + demoRole, "# permissions of " + demoRole,
		"before any of this is applied", "✗ role ", "(ExternalIDRejected)",
		"lets the role be assumed", "✓ role ", "✗ put object", "(PutObjectDenied)",
		"lets the role write", "✓ put object", "The sink can write.",
		"segment-logs/checkout/", "segment-logs/dummy-object.txt",
	} {
		_, after, found := strings.Cut(rest, text)
		if !found {
			t.Fatalf("no %q in its place:\n%s", text, r.stdout)
		}
		rest = after
	}
}

func TestDemonstrationAsJSON(t *testing.T) {
	t.Parallel()
	r := demoRun(t, "-json")
	r.want(t, 0)
	r.decode(t)
	var got struct {
		Policies      []document
		Demonstration demonstration
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatal(err)
	}
	var codes []s3sink.ValidationCode
	applied := 0
	for _, stage := range got.Demonstration.Stages {
		applied += len(stage.Applied)
		if stage.Report.Err == nil {
			codes = append(codes, "")
			continue
		}
		codes = append(codes, stage.Report.Err.Code)
	}
	if want := []s3sink.ValidationCode{s3sink.CodeExternalIDRejected, s3sink.CodePutObjectDenied, ""}; !slices.Equal(codes, want) {
		t.Errorf("codes %q, want %q", codes, want)
	}
	if len(got.Policies) != 3 || applied != 3 || got.Demonstration.Events != 1 {
		t.Errorf("%d policies, %d applied, %d events; want 3, 3, 1", len(got.Policies), applied, got.Demonstration.Events)
	}
}

func TestDemonstrationInterrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithTimeout(t.Context(), time.Second) // while it waits
		defer interrupt()
		var stdout, stderr bytes.Buffer
		code := run(ctx, nil, &stdout, &stderr)
		result{code, stdout.String(), stderr.String()}.want(t, cannot, "before any of this", context.DeadlineExceeded.Error())
	})
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*s3sinktest.Server)
		flags  []string
		code   int
		want   []string
	}{
		"can write": {code: canWrite, want: []string{
			"s3://acme-events/raw/segment-logs/dummy-object.txt", "as " + testUser, "The sink can write.\n"}},
		"no external id demanded": {code: cannot,
			change: func(s *s3sinktest.Server) {
				s.AddRole(s3sinktest.Role{ARN: testRole, TrustedPrincipals: []string{testUser}})
			},
			want: []string{"✗ role without external id", "(ExternalIDNotRequired)", `"sts:ExternalId": "acme-42"`}},
		"no such bucket": {flags: []string{"-bucket", "nowhere"}, code: cannot, want: []string{"404 NoSuchBucket", "(PutObject)"}},
		"other headers": {code: canWrite, flags: []string{"-key-format", "hive", "-prefix", "p", "-sse", "s3",
			"-acl", "bucket-owner-full-control", "-expected-owner", s3sinktest.AccountID, "-no-session-policy", "-sts-region", "eu-west-1"},
			change: func(s *s3sinktest.Server) {
				s.AddRole(s3sinktest.Role{ARN: testRole, TrustedPrincipals: []string{testUser}, ExternalID: "acme-42"})
			},
			want: []string{"raw/p/events/_s3sink/dummy-object.txt", "can write"}},
		"an intermediate role": {code: canWrite, flags: []string{"-via", "arn:aws:iam::210987654321:role/Hop hop-1"},
			change: func(s *s3sinktest.Server) {
				s.AddRole(s3sinktest.Role{ARN: "arn:aws:iam::210987654321:role/Hop", TrustedPrincipals: []string{testUser}, ExternalID: "hop-1"})
				s.AddRole(s3sinktest.Role{ARN: testRole, TrustedPrincipals: []string{"arn:aws:iam::210987654321:role/Hop"}, ExternalID: "acme-42"})
			},
			want: []string{"role arn:aws:iam::210987654321:role/Hop", "can write"}},
		"with the policies": {code: canWrite, flags: []string{"-print", "json", "-validate"},
			want: []string{"# permissions of " + testRole, "can write"}},
		"virtual hosts": {code: cannot, flags: []string{"-path-style=false", "-endpoint", "http://s3.localhost:1"}, want: []string{"S3 did not answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, flags := server(t)
			if c.change != nil {
				c.change(server)
			}
			flags = append(flags, c.flags...)
			start(t, flags...).want(t, c.code, c.want...)

			r := start(t, append(flags, "-json")...)
			r.want(t, c.code)
			report := r.decode(t)["report"].(map[string]any)
			if _, failed := report["error"]; failed != (c.code == cannot) {
				t.Errorf("JSON says failed: %t:\n%s", failed, r.stdout)
			}
		})
	}
}

func TestKeyFormats(t *testing.T) {
	t.Parallel()
	for format, folder := range map[string]string{
		"segment": "segment-logs/", "rudderstack": "rudder-logs/", "rudderstack-listed": "rudder-logs/", "hive": "events/",
		"mine/{source}/{uuid}.gz": "mine/",
	} {
		start(t, "-bucket", "acme-events", "-key-format", format, "-print", "json").want(t, 0, "arn:aws:s3:::acme-events/"+folder+"*")
	}
}

// all are flags of everything that the policies depend on.
var all = []string{
	"-bucket", "acme-events/raw", "-role", testRole, "-external-id", "acme-42", "-via", "arn:aws:iam::210987654321:role/Hop",
	"-caller", testUser, "-bucket-key", testKMSKey, "-cross-account", "-warehouse", "-acl", "bucket-owner-full-control",
}

func TestPrint(t *testing.T) {
	t.Parallel()
	for form, c := range map[string]struct {
		want []string
		json func(any) bool
	}{
		asJSON: {
			want: []string{"# trust policy of " + testRole, `"s3:PutObjectAcl"`, `"s3:ListBucket"`, "# bucket policy of arn:aws:s3:::acme-events", "# key policy of " + testKMSKey},
			json: func(v any) bool { list, ok := v.([]any); return ok && len(list) == 7 },
		},
		asCLI: {
			want: []string{"#!/bin/sh", "role/Hop' Hop / ", "inline_policy user setup-test s3sink-assume-role ", "bucket_policy acme-events "},
			json: func(v any) bool { text, ok := v.(string); return ok && strings.HasPrefix(text, "#!/bin/sh") },
		},
		asTerraform: {
			want: []string{"# main.tf\n", `resource "aws_iam_role" "SetupTest"`, "# policies/outputs.tf\n"},
			json: func(v any) bool {
				files, ok := v.(map[string]any)
				return ok && files["main.tf"] != nil && len(files) == 2
			},
		},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			start(t, append(all, "-print", form)...).want(t, 0, c.want...)
			r := start(t, append(all, "-print", form, "-json")...)
			r.want(t, 0)
			if got := r.decode(t); !c.json(got["policies"]) || len(got) != 1 {
				t.Errorf("got\n%s", r.stdout)
			}
		})
	}
}

func TestPrintTerraformIntoDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	flags := append(slices.Clone(all), "-print", "terraform", "-dir", dir)
	start(t, flags...).want(t, 0, filepath.Join(dir, "main.tf")+"\n", filepath.Join(dir, "policies", "outputs.tf")+"\n")

	// Over its own files it may write.
	start(t, append(flags, "-external-id", "acme-43", "-json")...).want(t, 0)
	text, err := os.ReadFile(filepath.Join(dir, "policies", "outputs.tf"))
	if err != nil || !strings.Contains(string(text), "acme-43") {
		t.Errorf("%v, and the file is\n%s", err, text)
	}

	// Over others it may not.
	for _, name := range []string{"main.tf", "policies/outputs.tf"} {
		dir := t.TempDir()
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("somebody else's\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		start(t, append(flags, "-dir", dir)...).want(t, cannot, "-dir: ", name+" was not written by this program")
		if text, _ := os.ReadFile(path); string(text) != "somebody else's\n" {
			t.Errorf("%s is now\n%s", name, text)
		}
	}
	r := start(t, append(flags, "-dir", filepath.Join(dir, "main.tf"), "-json")...)
	r.want(t, cannot)
	if r.decode(t)["error"] == nil {
		t.Errorf("no error in\n%s", r.stdout)
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	with := func(flags ...string) []string { return append([]string{"-bucket", "acme-events"}, flags...) }
	for name, c := range map[string]struct {
		flags []string
		want  []string
	}{
		"unknown":              {with("-secret", "x"), []string{"-secret"}},
		"argument":             {with("acme"), []string{`"acme"`}},
		"empty bucket":         {[]string{"-bucket", ""}, []string{"-bucket is empty"}},
		"no bucket":            {[]string{"-role", testRole, "-print", "cli"}, []string{"-print needs -bucket", "-role needs -bucket"}},
		"bucket as URI":        {[]string{"-bucket", "s3://acme-events"}, []string{"-bucket ", "not a URI"}},
		"path of the bucket":   {[]string{"-bucket", "acme-events/a/../b"}, []string{`-bucket "a/../b"`}},
		"prefix":               {with("-prefix", "a/../b"), []string{`-prefix "a/../b"`}},
		"source":               {with("-source", ""), []string{"-source"}},
		"key format":           {with("-key-format", "hiev"), []string{`-key-format "hiev"`, "{uuid}"}},
		"region":               {with("-region", "Frankfurt"), []string{`-region "Frankfurt"`}},
		"endpoint":             {with("-endpoint", "http://minio.example.com"), []string{"-endpoint", "https"}},
		"STS endpoint":         {with("-role", testRole, "-sts-endpoint", "sts"), []string{`-sts-endpoint "sts"`}},
		"STS region":           {with("-role", testRole, "-sts-region", "?"), []string{"-sts-region"}},
		"role":                 {with("-role", "S3Sink"), []string{`-role "S3Sink"`, "arn:aws:iam::"}},
		"external id":          {with("-role", testRole, "-external-id", "ä"), []string{"-external-id"}},
		"intermediate role":    {with("-role", testRole, "-via", "Hop x1"), []string{`-via "Hop"`}},
		"its external id":      {with("-role", testRole, "-external-id", "acme", "-via", "arn:aws:iam::210987654321:role/Hop ä"), []string{`-via "ä"`}},
		"needs role":           {with("-external-id", "x1", "-via", "x", "-caller", testUser), []string{"-external-id needs -role", "-via needs -role", "-caller needs -role"}},
		"encryption":           {with("-sse", "AES256"), []string{`-sse "AES256"`}},
		"ACL":                  {with("-acl", "everybody"), []string{"-acl"}},
		"owner":                {with("-expected-owner", "acme"), []string{"-expected-owner"}},
		"caller":               {with("-role", testRole, "-caller", "checkout"), []string{`-caller "checkout"`}},
		"caller is a session":  {with("-role", testRole, "-caller", "arn:aws:sts::210987654321:assumed-role/checkout/i-0abc"), []string{"-caller", "arn:aws:iam::210987654321:role/checkout"}},
		"writer":               {with("-writer", "AKIA"), []string{"-writer"}},
		"writer and role":      {with("-role", testRole, "-writer", testUser), []string{"-writer", "-caller"}},
		"bucket key":           {with("-bucket-key", "alias/logs"), []string{"-bucket-key"}},
		"bucket key, no use":   {with("-bucket-key", testKMSKey, "-sse", "s3"), []string{"-bucket-key has no effect"}},
		"print":                {with("-print", "yaml"), []string{"-print yaml"}},
		"print nothing":        {with("-print", ""), []string{"-print"}},
		"directory":            {with("-print", "cli", "-dir", "x"), []string{"-dir needs -print terraform"}},
		"validate alone":       {with("-validate"), []string{"-validate needs -print"}},
		"timeout":              {with("-timeout", "-1s"), []string{"-timeout"}},
		"everything, together": {with("-prefix", "..", "-region", "?", "-caller", "x", "-role", "y"), []string{"-prefix", "-region", "-caller", "-role"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, append(c.flags, "-json")...)
			r.want(t, wrongFlags, c.want...)
			if r.stdout != "" {
				t.Errorf("stdout %q, want nothing", r.stdout)
			}
		})
	}
}

// Every flag that a Config can refuse is in the table by which it is named.
func TestFlagsAreThere(t *testing.T) {
	t.Parallel()
	r := start(t, "-h")
	r.want(t, 0, "go run ./examples/setup", "-print")
	for _, name := range slices.Collect(maps.Values(flags)) {
		if !strings.Contains(r.stdout, "\n  -"+name+" ") {
			t.Errorf("no flag -%s in the help", name)
		}
	}
	if _, err := parseOptions([]string{"-h"}, io.Discard); err != flag.ErrHelp {
		t.Errorf("%v, want ErrHelp", err)
	}
}

// What the AWS environment says is checked too, and it is not the flags' fault.
func TestRefusedConfig(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	cfg := s3sink.Config{}
	ok, err := validate(t.Context(), cfg, newPrinter(&stdout, false), &stderr)
	if ok || err == nil || stdout.Len() > 0 {
		t.Errorf("%t, %v, %q", ok, err, stdout.String())
	}
}

func TestColors(t *testing.T) {
	t.Parallel()
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for name, c := range map[string]struct {
		terminal bool
		env      func(string) string
		want     bool
	}{
		"terminal":         {true, env("TERM", "xterm-256color"), true},
		"pipe":             {false, env("TERM", "xterm"), false},
		"NO_COLOR":         {true, env("TERM", "xterm", "NO_COLOR", "1"), false},
		"dumb terminal":    {true, env("TERM", "dumb"), false},
		"unknown terminal": {true, env(), false},
	} {
		if got := colored(c.terminal, c.env); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
	report := &s3sink.ValidationReport{Steps: []s3sink.ValidationStep{{Name: "role", Result: s3sink.StepOK}}}
	for _, color := range []bool{true, false} {
		var out strings.Builder
		p := &printer{w: &out, color: color}
		p.report(report)
		if got := strings.Contains(out.String(), "\x1b[32m"); got != color {
			t.Errorf("color %t: %q", color, out.String())
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if terminal.Is(null) || terminal.Is(&bytes.Buffer{}) {
		t.Error("what is no terminal is taken for one")
	}
}

// The commands in the pages are ones that this program takes.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	found := 0
	for _, page := range []string{"../../README.md", "../../docs/setup.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			_, command, is := strings.Cut(line, "go run ./examples/setup")
			command, _, _ = strings.Cut(command, "#")
			command, _, _ = strings.Cut(command, ">")
			if !is || strings.ContainsAny(command, "…`") { // shortened, or in a sentence
				continue
			}
			found++
			if _, err := parseOptions(strings.Fields(command), io.Discard); err != nil {
				t.Errorf("%s: %s: %v", page, strings.TrimSpace(line), err)
			}
		}
	}
	if found < 5 {
		t.Errorf("%d commands found", found)
	}
}

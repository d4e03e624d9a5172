package setup

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
	"github.com/s3sink/s3sink/internal/clitest"
	"github.com/s3sink/s3sink/internal/terminal"
	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

const testKMSKey = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

func TestMain(m *testing.M) {
	clitest.SetEnvironment()
	os.Exit(m.Run())
}

// start runs the program with flags.
func start(t *testing.T, args ...string) clitest.Result {
	t.Helper()
	return clitest.Run(func(stdout, stderr io.Writer) int {
		return Run(t.Context(), args, stdout, stderr)
	})
}

// decode returns the JSON object on standard output. It fails the test if there
// is anything after it.
func decode(t *testing.T, r clitest.Result) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.Stdout))
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		t.Fatalf("%v in\n%s", err, r.Stdout)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("standard output goes on after the object (%v):\n%s", err, r.Stdout)
	}
	return object
}

// startDemo runs the demonstration in a synctest bubble, so that the waits of
// Validate take no real time.
func startDemo(t *testing.T, args ...string) (r clitest.Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { r = start(t, args...) })
	return r
}

// Given no flags, then the demonstration prints the policies and applies them
// in steps, and Validate passes at the end.
func TestDemonstration_Text(t *testing.T) {
	t.Parallel()
	r := startDemo(t)
	r.Want(t, 0, `"sts:ExternalId": [`)
	if r.Stderr != "" {
		t.Errorf("stderr %q, want nothing", r.Stderr)
	}
	rest := r.Stdout
	for _, text := range []string{
		"# permissions of " + demoCaller, "# trust policy of " + demoRole, "# permissions of " + demoRole,
		"before the policies are applied", "✗ role ", "(ExternalIDRejected)",
		"let the service assume the role", "✓ role ", "✗ put object", "(PutObjectDenied)",
		"let the role write", "✓ put object", "The sink can write.",
		"segment-logs/checkout/", "segment-logs/dummy-object.txt",
	} {
		_, after, found := strings.Cut(rest, text)
		if !found {
			t.Fatalf("no %q in its place:\n%s", text, r.Stdout)
		}
		rest = after
	}
}

// Given -json, then the demonstration prints one object with all stages.
func TestDemonstration_JSON(t *testing.T) {
	t.Parallel()
	r := startDemo(t, "-json")
	r.Want(t, 0)
	decode(t, r)
	var got struct {
		Policies      policy.Set
		Demonstration demonstration
	}
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil {
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

// Given a context that ends while Validate waits, then the demonstration stops
// with the context's error.
func TestDemonstration_Interrupted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithTimeout(t.Context(), time.Second) // while Validate waits
		defer interrupt()
		clitest.Run(func(stdout, stderr io.Writer) int {
			return Run(ctx, nil, stdout, stderr)
		}).Want(t, cannotWrite, "before the policies are applied", context.DeadlineExceeded.Error())
	})
}

// Given a bucket and a role, when the program validates, then its exit code,
// its text and its JSON agree on whether the sink can write.
func TestSetup_Validate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*s3sinktest.Server)
		flags  []string
		code   int
		want   []string
	}{
		"can write": {code: canWrite, want: []string{
			"s3://acme-events/raw/segment-logs/dummy-object.txt", "as " + clitest.User, "The sink can write.\n"}},
		"no external id demanded": {code: cannotWrite,
			change: func(s *s3sinktest.Server) {
				s.AddRole(s3sinktest.Role{ARN: clitest.Role, TrustedPrincipals: []string{clitest.User}})
			},
			want: []string{"✗ role without external id", "(ExternalIDNotRequired)", `"sts:ExternalId": [`, `"acme-42"`}},
		"no such bucket": {flags: []string{"-bucket", "nowhere"}, code: cannotWrite, want: []string{"404 NoSuchBucket", "(PutObject)"}},
		"other headers": {code: canWrite, flags: []string{"-key-format", "hive", "-prefix", "p", "-sse", "s3",
			"-acl", "bucket-owner-full-control", "-expected-owner", s3sinktest.AccountID, "-no-session-policy", "-sts-region", "eu-west-1"},
			change: func(s *s3sinktest.Server) {
				s.AddRole(s3sinktest.Role{ARN: clitest.Role, TrustedPrincipals: []string{clitest.User}, ExternalID: "acme-42"})
			},
			want: []string{"raw/p/events/_s3sink/dummy-object.txt", "can write"}},
		"an intermediate role": {code: canWrite, flags: []string{"-via", "arn:aws:iam::210987654321:role/Hop hop-1"},
			change: func(s *s3sinktest.Server) {
				s.AddRole(s3sinktest.Role{ARN: "arn:aws:iam::210987654321:role/Hop", TrustedPrincipals: []string{clitest.User}, ExternalID: "hop-1"})
				s.AddRole(s3sinktest.Role{ARN: clitest.Role, TrustedPrincipals: []string{"arn:aws:iam::210987654321:role/Hop"}, ExternalID: "acme-42"})
			},
			want: []string{"role arn:aws:iam::210987654321:role/Hop", "can write"}},
		"with the policies": {code: canWrite, flags: []string{"-print", "json", "-validate"},
			want: []string{"# permissions of " + clitest.Role, "can write"}},
		"virtual hosts": {code: cannotWrite, flags: []string{"-path-style=false", "-endpoint", "http://s3.localhost:1"}, want: []string{"S3 did not answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, flags := clitest.StartServer(t)
			if c.change != nil {
				c.change(server)
			}
			flags = append(flags, c.flags...)
			start(t, flags...).Want(t, c.code, c.want...)

			r := start(t, append(flags, "-json")...)
			r.Want(t, c.code)
			report := decode(t, r)["report"].(map[string]any)
			if _, failed := report["error"]; failed != (c.code == cannotWrite) {
				t.Errorf("JSON says failed: %t:\n%s", failed, r.Stdout)
			}
		})
	}
}

// Given a -key-format, then the policy covers the folder of its keys.
func TestSetup_KeyFormats(t *testing.T) {
	t.Parallel()
	for format, folder := range map[string]string{
		"segment": "segment-logs/", "rudderstack": "rudder-logs/", "rudderstack-listed": "rudder-logs/", "hive": "events/",
		"mine/{source}/{uuid}.gz": "mine/",
	} {
		start(t, "-bucket", "acme-events", "-key-format", format, "-print", "json").Want(t, 0, "arn:aws:s3:::acme-events/"+folder+"*")
	}
}

// allFlags sets every flag that the policies depend on.
var allFlags = []string{
	"-bucket", "acme-events/raw", "-role", clitest.Role, "-external-id", "acme-42", "-via", "arn:aws:iam::210987654321:role/Hop",
	"-caller", clitest.User, "-bucket-key", testKMSKey, "-cross-account", "-warehouse", "-acl", "bucket-owner-full-control",
}

// Given every flag that the policies depend on, then each form of -print has
// all policies, with and without -json.
func TestSetup_Print(t *testing.T) {
	t.Parallel()
	for form, c := range map[string]struct {
		want []string
		json func(any) bool
	}{
		asJSON: {
			want: []string{"# trust policy of " + clitest.Role, `"s3:PutObjectAcl"`, `"s3:ListBucket"`, "# bucket policy of arn:aws:s3:::acme-events", "# key policy of " + testKMSKey},
			json: func(v any) bool { list, ok := v.([]any); return ok && len(list) == 7 },
		},
		asCLI: {
			want: []string{"#!/bin/sh", "role/Hop' Hop / ", "inline_policy user example-test s3sink-assume-role ", "bucket_policy acme-events "},
			json: func(v any) bool { text, ok := v.(string); return ok && strings.HasPrefix(text, "#!/bin/sh") },
		},
		asTerraform: {
			want: []string{"# main.tf\n", `resource "aws_iam_role" "ExampleTest"`, "# policies/outputs.tf\n"},
			json: func(v any) bool {
				files, ok := v.(map[string]any)
				return ok && files["main.tf"] != nil && len(files) == 2
			},
		},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			start(t, append(allFlags, "-print", form)...).Want(t, 0, c.want...)
			r := start(t, append(allFlags, "-print", form, "-json")...)
			r.Want(t, 0)
			if got := decode(t, r); !c.json(got["policies"]) || len(got) != 1 {
				t.Errorf("got\n%s", r.Stdout)
			}
		})
	}
}

// Given -dir, then the program overwrites its own files and refuses to
// overwrite others.
func TestSetup_TerraformDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	flags := append(slices.Clone(allFlags), "-print", "terraform", "-dir", dir)
	start(t, flags...).Want(t, 0, filepath.Join(dir, "main.tf")+"\n", filepath.Join(dir, "policies", "outputs.tf")+"\n")

	// The directory now holds files of the program.
	start(t, append(flags, "-external-id", "acme-43", "-json")...).Want(t, 0)
	text, err := os.ReadFile(filepath.Join(dir, "policies", "outputs.tf"))
	if err != nil || !strings.Contains(string(text), "acme-43") {
		t.Errorf("%v, and the file is\n%s", err, text)
	}

	// These directories hold other files.
	for _, name := range []string{"main.tf", "policies/outputs.tf"} {
		dir := t.TempDir()
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("somebody else's\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		start(t, append(flags, "-dir", dir)...).Want(t, cannotWrite, "-dir: ", name+" was not written by this program")
		if text, _ := os.ReadFile(path); string(text) != "somebody else's\n" {
			t.Errorf("%s is now\n%s", name, text)
		}
	}
	r := start(t, append(flags, "-dir", filepath.Join(dir, "main.tf"), "-json")...)
	r.Want(t, cannotWrite)
	if decode(t, r)["error"] == nil {
		t.Errorf("no error in\n%s", r.Stdout)
	}
}

// Given invalid flags, then the program prints nothing to standard output and
// reports every invalid flag by its name.
func TestSetup_InvalidFlags(t *testing.T) {
	t.Parallel()
	with := func(flags ...string) []string { return append([]string{"-bucket", "acme-events"}, flags...) }
	for name, c := range map[string]struct {
		flags []string
		want  []string
	}{
		"unknown":              {with("-secret", "x"), []string{"-secret"}},
		"argument":             {with("acme"), []string{`"acme"`}},
		"empty bucket":         {[]string{"-bucket", ""}, []string{"-bucket is empty"}},
		"no bucket":            {[]string{"-role", clitest.Role, "-print", "cli"}, []string{"-print needs -bucket", "-role needs -bucket"}},
		"bucket as URI":        {[]string{"-bucket", "s3://acme-events"}, []string{"-bucket ", "not a URI"}},
		"path of the bucket":   {[]string{"-bucket", "acme-events/a/../b"}, []string{`-bucket "a/../b"`}},
		"prefix":               {with("-prefix", "a/../b"), []string{`-prefix "a/../b"`}},
		"source":               {with("-source", ""), []string{"-source"}},
		"key format":           {with("-key-format", "hiev"), []string{`-key-format "hiev"`, "{uuid}"}},
		"region":               {with("-region", "Frankfurt"), []string{`-region "Frankfurt"`}},
		"endpoint":             {with("-endpoint", "http://minio.example.com"), []string{"-endpoint", "https"}},
		"STS endpoint":         {with("-role", clitest.Role, "-sts-endpoint", "sts"), []string{`-sts-endpoint "sts"`}},
		"STS region":           {with("-role", clitest.Role, "-sts-region", "?"), []string{"-sts-region"}},
		"role":                 {with("-role", "S3Sink"), []string{`-role "S3Sink"`, "arn:aws:iam::"}},
		"external id":          {with("-role", clitest.Role, "-external-id", "ä"), []string{"-external-id"}},
		"intermediate role":    {with("-role", clitest.Role, "-via", "Hop x1"), []string{`-via "Hop"`}},
		"its external id":      {with("-role", clitest.Role, "-external-id", "acme", "-via", "arn:aws:iam::210987654321:role/Hop ä"), []string{`-via "ä"`}},
		"needs role":           {with("-external-id", "x1", "-via", "x", "-caller", clitest.User), []string{"-external-id needs -role", "-via needs -role", "-caller needs -role"}},
		"encryption":           {with("-sse", "AES256"), []string{`-sse "AES256"`}},
		"ACL":                  {with("-acl", "everybody"), []string{"-acl"}},
		"owner":                {with("-expected-owner", "acme"), []string{"-expected-owner"}},
		"caller":               {with("-role", clitest.Role, "-caller", "checkout"), []string{`-caller "checkout"`}},
		"caller is a session":  {with("-role", clitest.Role, "-caller", "arn:aws:sts::210987654321:assumed-role/checkout/i-0abc"), []string{"-caller", "arn:aws:iam::210987654321:role/checkout"}},
		"writer":               {with("-writer", "AKIA"), []string{"-writer"}},
		"writer and role":      {with("-role", clitest.Role, "-writer", clitest.User), []string{"-writer", "-caller"}},
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
			r.Want(t, invalidFlags, c.want...)
			if r.Stdout != "" {
				t.Errorf("stdout %q, want nothing", r.Stdout)
			}
		})
	}
}

// Given the table of flags by Config field, then the help has each of its
// flags.
func TestFlagByField_KnownFlags(t *testing.T) {
	t.Parallel()
	r := start(t, "-h")
	r.Want(t, 0, "s3sink setup -bucket", "-print")
	for _, name := range slices.Collect(maps.Values(flagByField)) {
		if !strings.Contains(r.Stdout, "\n  -"+name+" ") {
			t.Errorf("no flag -%s in the help", name)
		}
	}
	if _, err := parseOptions([]string{"-h"}, io.Discard); err != flag.ErrHelp {
		t.Errorf("%v, want ErrHelp", err)
	}
}

// Given a Config that New refuses, then validate returns the error and prints
// nothing.
func TestValidate_InvalidConfig(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	cfg := s3sink.Config{}
	ok, err := validate(t.Context(), cfg, newPrinter(&stdout, false), &stderr)
	if ok || err == nil || stdout.Len() > 0 {
		t.Errorf("%t, %v, %q", ok, err, stdout.String())
	}
}

// Given a terminal and its environment, then the report has colors only if the
// terminal supports them and NO_COLOR is not set.
func TestUseColor_Environment(t *testing.T) {
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
		if got := useColor(c.terminal, c.env); got != c.want {
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
		t.Error("Is reports a terminal for the null device or a buffer")
	}
}

// Given the commands in README.md and docs/setup.md, then the program accepts
// their flags.
func TestDocs_Commands(t *testing.T) {
	t.Parallel()
	found := 0
	for _, page := range []string{"../../../../README.md", "../../../../docs/setup.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			_, command, is := strings.Cut(line, "go run ./cmd/s3sink setup")
			command, _, _ = strings.Cut(command, "#")
			command, _, _ = strings.Cut(command, ">")
			if !is || strings.ContainsAny(command, "…`") { // abbreviated, or part of a sentence
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

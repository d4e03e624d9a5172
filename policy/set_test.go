package policy_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/policy"
)

var update = flag.Bool("update", false, "write the files in testdata")

const (
	serviceRole = "arn:aws:iam::210987654321:role/apps/checkout"
	kmsKey      = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// setup is a sink and the AWS facts about it.
type setup struct {
	sink policy.Sink
	in   policy.Input
}

// setups holds the usual ways to give a sink access to a bucket.
var setups = map[string]setup{
	"segment-role": {
		policy.Sink{
			Bucket: "acme-events", Folder: "path/prefix/segment-logs/",
			Roles: []policy.Role{{ARN: "arn:aws:iam::123456789012:role/S3Sink", ExternalID: "workspace-7"}},
		},
		policy.Input{Caller: serviceRole, BucketKMSKey: kmsKey},
	},
	"intermediate-role-in-china": {
		policy.Sink{
			Bucket: "acme-events", Folder: "it's a$b/events/", Partition: "aws-cn", Encryption: "AES256",
			SetsACL: true, SetsTags: true,
			Roles: []policy.Role{
				{ARN: "arn:aws-cn:iam::210987654321:role/Exporter"},
				{ARN: "arn:aws-cn:iam::123456789012:role/vendors/S3Sink", ExternalID: "workspace-7"},
			},
		},
		policy.Input{Caller: "arn:aws-cn:iam::210987654321:user/service"},
	},
	"rudderstack-option-1": {
		policy.Sink{Bucket: "acme-events", Folder: "prod/rudder-logs/"},
		policy.Input{Writer: "arn:aws:iam::123456789012:user/rudder"},
	},
	"rudderstack-options-2-and-3": {
		policy.Sink{Bucket: "acme-events", Folder: "rudder-logs/", Encryption: "aws:kms", KMSKey: kmsKey},
		policy.Input{Writer: "arn:aws:iam::210987654321:user/s3-copy", CrossAccount: true},
	},
	"warehouse": {
		policy.Sink{Bucket: "acme-events", Folder: "rudder-logs/", Encryption: "aws:kms", KMSKey: kmsKey},
		policy.Input{Warehouse: true},
	},
	"same-names": { // in two accounts, with characters that are special in shells and Terraform
		policy.Sink{
			Bucket: "acme-events", Folder: "segment-logs/", Partition: "aws-us-gov",
			Roles: []policy.Role{{ARN: "arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party", ExternalID: "workspace-7"}},
		},
		policy.Input{Caller: "arn:aws-us-gov:iam::210987654321:role/3rd-party"},
	},
	"bucket-of-others": {
		policy.Sink{Bucket: "acme-events", Folder: "segment-logs/"},
		policy.Input{Writer: "arn:aws:iam::210987654321:user/exporter", CrossAccount: true},
	},
	"nobody-known": {
		policy.Sink{
			Bucket: "acme-events", Folder: "a*b/segment-logs/", Encryption: "aws:kms", KMSKey: "alias/logs",
			Roles: []policy.Role{{ARN: "arn:aws:iam::123456789012:role/S3Sink"}},
		},
		policy.Input{},
	},
}

// mustPolicies returns the policies of a valid setup.
func mustPolicies(t *testing.T, s setup) policy.Set {
	t.Helper()
	set, err := policy.For(s.sink, s.in)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// golden compares text with a file, or writes the file with -update.
func golden(t testing.TB, file, text string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text {
		t.Errorf("%s differs; go test -run '%s' -update . writes it. Now it would be\n%s", file, t.Name(), text)
	}
}

// Given each setup, when its policies are rendered, then the files equal the files
// in testdata.
func TestSet_Rendered(t *testing.T) {
	t.Parallel()
	for name, tt := range setups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policies := mustPolicies(t, tt)
			files := map[string]string{"policies.txt": policies.String(), "policies.sh": withoutFunctions(policies.CLI())}
			maps.Copy(files, policies.Terraform())
			for file, text := range files {
				golden(t, filepath.Join("testdata", name, filepath.FromSlash(file)), text)
			}
		})
	}
}

// withoutFunctions removes the common start of every script, cli.sh and merge.awk,
// up to the end of the awk program.
func withoutFunctions(script string) string {
	if _, rest, found := strings.Cut(script, "\n}\n'\n"); found {
		return rest
	}
	return script
}

// Given a wrong field, when For is called, then the error names the field. Errors of
// several fields are joined.
func TestFor_WrongField(t *testing.T) {
	t.Parallel()
	right := policy.Sink{Bucket: "acme-events"}
	for field, wrong := range map[string]setup{
		"Input.Caller":       {right, policy.Input{Caller: "arn:aws:sts::123456789012:assumed-role/x/y"}},
		"Input.Writer":       {right, policy.Input{Writer: "AKIA"}},
		"Input.BucketKMSKey": {right, policy.Input{BucketKMSKey: "alias/logs"}},
		"Sink.Bucket":        {sink: policy.Sink{Bucket: "acme-events/path"}},
		"Sink.Partition":     {sink: policy.Sink{Bucket: "acme-events", Partition: "eu-west-1"}},
		"Sink.Encryption":    {sink: policy.Sink{Bucket: "acme-events", Encryption: "SSE-S3"}},
		"Sink.Roles":         {sink: policy.Sink{Bucket: "acme-events", Roles: []policy.Role{{ARN: "arn:aws:iam::123456789012:user/x"}}}},
	} {
		set, err := policy.For(wrong.sink, wrong.in)
		var got *policy.InputError
		if !errors.As(err, &got) || got.Field != field || set != nil {
			t.Errorf("%v and %v, want an error for %s alone", set, err, field)
		}
	}
	if _, err := policy.For(policy.Sink{}, policy.Input{Caller: strings.Repeat("x", 100), Writer: "x"}); err == nil ||
		strings.Count(err.Error(), "\n") != 2 || strings.Contains(err.Error(), strings.Repeat("x", 81)) {
		t.Errorf("%v, want three problems, and at most 80 bytes of a value", err)
	}
}

var outputName = regexp.MustCompile(`(?m)^output "(\w+)"`)

// Given each setup, when Terraform loads the module, then it accepts the files
// unchanged, and its outputs equal the documents.
func TestSet_Terraform(t *testing.T) {
	t.Parallel()
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		if terraform, err = exec.LookPath("tofu"); err != nil {
			t.Skip("neither terraform nor tofu is here: the modules are compared with their golden files alone")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(setups)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policies := mustPolicies(t, setups[name])
			dir := t.TempDir()
			run := func(in string, args ...string) {
				cmd := exec.Command(terraform, args...)
				cmd.Dir = in
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s %s: %v\n%s", terraform, strings.Join(args, " "), err, out)
				}
			}
			for file, text := range policies.Terraform() {
				path := filepath.Join(dir, filepath.FromSlash(file))
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			inner := filepath.Join(dir, "policies")
			test := "run \"documents\" {\n  command = plan\n"
			labels := outputName.FindAllStringSubmatch(policies.Terraform()["policies/outputs.tf"], -1)
			for i, d := range policies { // in the order of the outputs
				document := fmt.Sprintf("%q", d.Document.String())
				test += fmt.Sprintf("  assert {\n    condition     = jsondecode(output.%s) == jsondecode(%s)\n    error_message = \"differs\"\n  }\n",
					labels[i][1], strings.ReplaceAll(document, "${", "$${"))
			}
			if err := os.WriteFile(filepath.Join(inner, "documents.tftest.hcl"), []byte(test+"}\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			run(dir, "fmt", "-check", "-diff", "main.tf", "policies/outputs.tf")
			run(inner, "init", "-backend=false")
			run(inner, "test")
		})
	}
}

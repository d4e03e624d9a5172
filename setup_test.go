package s3sink_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
)

const (
	serviceRole = "arn:aws:iam::210987654321:role/apps/checkout"
	kmsKey      = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// setups are the ways in which people connect a bucket.
var setups = map[string]struct {
	cfg   s3sink.Config
	setup s3sink.Setup
}{
	"segment-role": {
		s3sink.Config{
			Bucket: "acme-events/path/prefix", SourceID: "checkout",
			Credentials: s3sink.AssumeRole("arn:aws:iam::123456789012:role/S3Sink", "workspace-7"),
		},
		s3sink.Setup{Caller: serviceRole, BucketKMSKey: kmsKey},
	},
	"intermediate-role-in-china": {
		s3sink.Config{
			Bucket: "acme-events", Prefix: "it's a$b", SourceID: "checkout", KeyFormat: s3sink.HiveKeys, Encryption: s3sink.SSES3(),
			ACL: "bucket-owner-full-control", Tags: map[string]string{"team": "data"},
			Credentials: s3sink.AssumeRole("arn:aws-cn:iam::123456789012:role/vendors/S3Sink", "workspace-7",
				s3sink.Via(s3sink.AssumeRole("arn:aws-cn:iam::210987654321:role/Exporter", ""))),
		},
		s3sink.Setup{Caller: "arn:aws-cn:iam::210987654321:user/service"},
	},
	"rudderstack-option-1": {
		s3sink.Config{
			Bucket: "acme-events", Prefix: "prod", SourceID: "1uXK", KeyFormat: s3sink.RudderStackKeys,
			Credentials: s3sink.AccessKeys("AKIA", "secret", ""),
		},
		s3sink.Setup{Writer: "arn:aws:iam::123456789012:user/rudder"},
	},
	"rudderstack-options-2-and-3": {
		s3sink.Config{
			Bucket: "acme-events", SourceID: "1uXK", KeyFormat: s3sink.RudderStackKeys, Encryption: s3sink.SSEKMS(kmsKey),
			Credentials: s3sink.AccessKeys("AKIA", "secret", ""),
		},
		s3sink.Setup{Writer: "arn:aws:iam::210987654321:user/s3-copy", CrossAccount: true},
	},
	"warehouse": {
		s3sink.Config{
			Bucket: "acme-events", SourceID: "1uXK", KeyFormat: s3sink.RudderStackKeys, Encryption: s3sink.SSEKMS(kmsKey),
			Credentials: s3sink.AccessKeys("AKIA", "secret", ""),
		},
		s3sink.Setup{Warehouse: true},
	},
	"same-names": { // in two accounts, and ones that shells and Terraform would read things into
		s3sink.Config{
			Bucket: "acme-events", SourceID: "checkout", Region: "us-gov-west-1",
			Credentials: s3sink.AssumeRole("arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party", "workspace-7"),
		},
		s3sink.Setup{Caller: "arn:aws-us-gov:iam::210987654321:role/3rd-party"},
	},
	"bucket-of-others": {
		s3sink.Config{Bucket: "acme-events", SourceID: "checkout", Credentials: s3sink.AccessKeys("AKIA", "secret", "")},
		s3sink.Setup{Writer: "arn:aws:iam::210987654321:user/exporter", CrossAccount: true},
	},
	"nobody-known": {
		s3sink.Config{
			Bucket: "acme-events", Prefix: "a*b", SourceID: "checkout",
			Credentials: s3sink.AssumeRole("arn:aws:iam::123456789012:role/S3Sink", ""), Encryption: s3sink.SSEKMS("alias/logs"),
		},
		s3sink.Setup{},
	},
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	for name, tt := range setups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policies, err := tt.cfg.Policies(tt.setup)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{"policies.txt": policies.String(), "policies.sh": withoutFunctions(policies.CLI())}
			maps.Copy(files, policies.Terraform())
			for file, text := range files {
				golden(t, filepath.Join("testdata", "setup", name, filepath.FromSlash(file)), text)
			}
		})
	}
}

// withoutFunctions leaves out what every script begins with, up to the end of the
// program for awk: setup_cli.sh and setup_merge.awk.
func withoutFunctions(script string) string {
	if _, rest, found := strings.Cut(script, "\n}\n'\n"); found {
		return rest
	}
	return script
}

func TestBadSetup(t *testing.T) {
	t.Parallel()
	for field, setup := range map[string]s3sink.Setup{
		"Setup.Caller":       {Caller: "arn:aws:sts::123456789012:assumed-role/x/y"},
		"Setup.Writer":       {Writer: "AKIA"},
		"Setup.BucketKMSKey": {BucketKMSKey: "alias/logs"},
	} {
		_, err := s3sink.Config{Bucket: "acme-events", SourceID: "x"}.Policies(setup)
		var wrong *s3sink.ConfigError
		if !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%v, want an error for %s", err, field)
		}
	}
	if _, err := (s3sink.Config{}).Policies(s3sink.Setup{Writer: "x"}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("%v, want all three problems", err)
	}
}

var outputName = regexp.MustCompile(`(?m)^output "(\w+)"`)

// Terraform takes the files as they are, and its outputs are the documents.
func TestPoliciesAsTerraform(t *testing.T) {
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
			policies, err := setups[name].cfg.Policies(setups[name].setup)
			if err != nil {
				t.Fatal(err)
			}
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
				document := fmt.Sprintf("%q", d.Policy.String())
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

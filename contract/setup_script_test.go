package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
)

// accounts is a moto server with IAM, S3 and KMS, used through the AWS CLI.
type accounts struct{ dir string }

func startMoto(t *testing.T) *accounts {
	t.Helper()
	server, err := exec.LookPath("moto_server")
	if err != nil {
		skip(t, "setup script against an IAM: there is no moto_server (pip install 'moto[server]')")
	}
	cli, err := exec.LookPath("aws")
	if err != nil {
		skip(t, "setup script against an IAM: there is no AWS CLI")
	}
	url, err := launch("http", func(at place) (string, error) {
		host, port, _ := strings.Cut(at.address, ":")
		_, err := at.serve("/moto-api/", "moto", server, os.Environ(), "-H", host, "-p", port)
		return at.url, err
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &accounts{dir: t.TempDir()}
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %q --endpoint-url %s \"$@\"\n", cli, url)
	if err := os.WriteFile(filepath.Join(a.dir, "aws"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	return a
}

// command returns a command whose PATH has the wrapper as aws.
func (a *accounts) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(environmentWithout("AWS_"),
		"PATH="+a.dir+string(os.PathListSeparator)+os.Getenv("PATH"),
		"AWS_ACCESS_KEY_ID=AKIAMOTO000000000000", "AWS_SECRET_ACCESS_KEY=moto",
		"AWS_DEFAULT_REGION="+region, "AWS_REGION="+region, "AWS_DEFAULT_OUTPUT=text",
		"AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
	return cmd
}

// aws runs one command of the CLI.
func (a *accounts) aws(t *testing.T, args ...string) string {
	t.Helper()
	cmd := a.command(filepath.Join(a.dir, "aws"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// setUp runs the script and returns its exit code and output.
func (a *accounts) setUp(t *testing.T, policies policy.Set, env ...string) (int, string) {
	t.Helper()
	cmd := a.command("sh")
	cmd.Stdin = strings.NewReader(policies.CLI())
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// Given a role that trusts others, an inline policy with our name, and a key whose
// policy does not leave permissions to IAM, then the script changes nothing and
// exits with 3. With APPLY_MERGED=1 every policy keeps its statements. The next run
// changes nothing.
func TestSetupScript_IAMOfMoto(t *testing.T) {
	t.Parallel()
	a := startMoto(t)
	key := a.aws(t, "kms", "create-key", "--query", "KeyMetadata.Arn", "--output", "text")
	cfg := s3sink.Config{
		Bucket: "acme-events", Prefix: "a&b", SourceID: "checkout",
		Credentials: s3sink.AssumeRole("arn:aws:iam::123456789012:role/vendors/S3Sink", "workspace-7"),
	}
	policies, err := cfg.Policies(policy.Input{Caller: "arn:aws:iam::123456789012:user/checkout", BucketKMSKey: key})
	if err != nil {
		t.Fatal(err)
	}
	a.aws(t, "iam", "create-user", "--user-name", "checkout")

	// No policy exists.
	if code, out := a.setUp(t, policies); code != 0 || strings.Count(out, "created: ") != 3 {
		t.Fatalf("exit %d, want 0 and three policies created\n%s", code, out)
	}

	// Policies of others exist.
	others := map[string]string{
		"trust":  `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::595280932656:role/customer-s3-prod-action-destination-access"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"workspace-1"}}}}`,
		"inline": `{"Version":"2012-10-17","Statement":[{"Sid":"WriteObjects","Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::other/*"}]}`,
		"key":    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:role/Admin"},"Action":"kms:*","Resource":"*"}]}`,
	}
	a.aws(t, "iam", "update-assume-role-policy", "--role-name", "S3Sink", "--policy-document", others["trust"])
	a.aws(t, "iam", "put-role-policy", "--role-name", "S3Sink", "--policy-name", "s3sink-write", "--policy-document", others["inline"])
	a.aws(t, "kms", "put-key-policy", "--key-id", key, "--policy-name", "default", "--policy", others["key"])
	read := func() map[string]string {
		return map[string]string{
			"trust":  a.aws(t, "iam", "get-role", "--role-name", "S3Sink", "--query", "Role.AssumeRolePolicyDocument", "--output", "json"),
			"inline": a.aws(t, "iam", "get-role-policy", "--role-name", "S3Sink", "--policy-name", "s3sink-write", "--query", "PolicyDocument", "--output", "json"),
			"key":    a.aws(t, "kms", "get-key-policy", "--key-id", key, "--policy-name", "default", "--query", "Policy", "--output", "text"),
		}
	}
	a.refusesThenMerges(t, policies, others, read)
}

// Given a bucket whose policy denies access without TLS, then the script leaves the
// policy unchanged. With APPLY_MERGED=1 the merged policy keeps the Deny.
func TestSetupScript_BucketOfMoto(t *testing.T) {
	t.Parallel()
	a := startMoto(t)
	cfg := s3sink.Config{Bucket: "acme-events", SourceID: "checkout", Credentials: s3sink.AccessKeys("AKIA", "secret", "")}
	policies, err := cfg.Policies(policy.Input{Writer: "arn:aws:iam::210987654321:user/exporter", CrossAccount: true})
	if err != nil {
		t.Fatal(err)
	}
	if code, out := a.setUp(t, policies); code == 0 || code == 3 || !strings.Contains(out, "(NoSuchBucket)") {
		t.Errorf("without a bucket: exit %d\n%s", code, out)
	}
	a.aws(t, "s3api", "create-bucket", "--bucket", "acme-events", "--create-bucket-configuration", "LocationConstraint="+region)
	if code, out := a.setUp(t, policies); code != 0 || !strings.Contains(out, "created: policy of bucket acme-events") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	others := map[string]string{
		"bucket": `{"Version":"2012-10-17","Statement":[{"Sid":"WriteObjects","Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::acme-events","arn:aws:s3:::acme-events/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}`,
	}
	a.aws(t, "s3api", "put-bucket-policy", "--bucket", "acme-events", "--policy", others["bucket"])
	a.refusesThenMerges(t, policies, others, func() map[string]string {
		return map[string]string{"bucket": a.aws(t, "s3api", "get-bucket-policy", "--bucket", "acme-events", "--query", "Policy", "--output", "text")}
	})
}

// refusesThenMerges runs the script against policies of others. read returns the
// current policies.
func (a *accounts) refusesThenMerges(t *testing.T, policies policy.Set, others map[string]string, read func() map[string]string) {
	t.Helper()
	code, out := a.setUp(t, policies)
	if code != 3 || strings.Count(out, "lacks our statements") != len(others) {
		t.Errorf("exit %d, want 3 and %d merged policies\n%s", code, len(others), out)
	}
	for name, policy := range read() {
		if n := countStatements(t, policy); n != 1 {
			t.Errorf("the %s policy was changed: %s", name, policy)
		}
	}
	if code, out := a.setUp(t, policies, "APPLY_MERGED=1"); code != 0 || strings.Count(out, "merged: ") != len(others) {
		t.Errorf("with APPLY_MERGED=1: exit %d\n%s", code, out)
	}
	for name, policy := range read() {
		theirs := strings.Split(others[name], `"`)
		if n := countStatements(t, policy); n < 2 {
			t.Errorf("the %s policy has %d statements, want theirs and ours: %s", name, n, policy)
		}
		for i := 1; i < len(theirs); i += 2 {
			if !strings.Contains(policy, `"`+theirs[i]+`"`) {
				t.Errorf("the %s policy lost %q: %s", name, theirs[i], policy)
			}
		}
	}
	if code, out := a.setUp(t, policies); code != 0 || strings.Contains(out, "merged") || strings.Contains(out, "created") {
		t.Errorf("again: exit %d, want nothing changed\n%s", code, out)
	}
}

func countStatements(t *testing.T, policy string) int {
	t.Helper()
	var document struct{ Statement any }
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		t.Fatalf("%v in %s", err, policy)
	}
	if list, ok := document.Statement.([]any); ok {
		return len(list)
	}
	return 1
}

// Package clitest holds the arrangements that the tests of the command line and of
// the examples share: an AWS environment, a server with one role, and the result of
// a run of the program.
package clitest

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/s3sinktest"
)

// The user of the AWS environment, and the role that [StartServer] lets this
// user assume with an external id.
const (
	User            = "arn:aws:iam::210987654321:user/example-test"
	AccessKeyID     = "AKIAEXAMPLETEST00000"
	SecretAccessKey = "example/test/secret"
	Role            = "arn:aws:iam::123456789012:role/team/ExampleTest"
	ExternalID      = "acme-42"
)

// The bucket that [StartServer] creates.
const (
	Bucket = "acme-events"
	Region = "eu-central-1"
)

// SetEnvironment replaces the AWS settings of the process environment with the
// credentials of User. It removes RudderStack's settings too, which s3sink also
// reads. TestMain calls it, so that no test uses the identity of the developer.
func SetEnvironment() {
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		if strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "RUDDER_") {
			if err := os.Unsetenv(name); err != nil {
				panic(err)
			}
		}
	}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":           AccessKeyID,
		"AWS_SECRET_ACCESS_KEY":       SecretAccessKey,
		"AWS_CONFIG_FILE":             os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED":   "true",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
}

// StartServer starts an S3 and STS double with the bucket, User, and Role. Role may
// put objects. StartServer also returns the flags that make an example write below
// the path raw of the bucket as Role.
func StartServer(t *testing.T) (*s3sinktest.Server, []string) {
	t.Helper()
	server := s3sinktest.NewServer()
	t.Cleanup(server.Close)
	server.CreateBucket(Bucket, Region)
	server.AddUser(s3sinktest.User{ARN: User, AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey})
	server.AddRole(s3sinktest.Role{
		ARN: Role, TrustedPrincipals: []string{User}, ExternalID: ExternalID,
		Actions: []string{"s3:PutObject"},
	})
	return server, []string{
		"-bucket", Bucket + "/raw", "-region", Region, "-endpoint", server.URL(),
		"-role", Role, "-external-id", ExternalID, "-sts-endpoint", server.URL(),
	}
}

// Result is the exit code and the output of a program.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Run calls the program and returns its result.
func Run(program func(stdout, stderr io.Writer) int) Result {
	var stdout, stderr bytes.Buffer
	code := program(&stdout, &stderr)
	return Result{code, stdout.String(), stderr.String()}
}

// Want fails the test unless the program ended with the code and printed the
// texts. It also fails if the output has escape codes, because it is no
// terminal, or a secret.
func (r Result) Want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d", r.Code, code)
	}
	output := r.Stdout + r.Stderr
	for _, text := range texts {
		if !strings.Contains(output, text) {
			t.Errorf("the output lacks %q", text)
		}
	}
	if strings.Contains(output, "\x1b") {
		t.Error("the output has escape codes, but is no terminal")
	}
	if strings.Contains(output, SecretAccessKey) {
		t.Error("the output has the secret access key")
	}
	if t.Failed() {
		t.Fatalf("stdout:\n%s\nstderr:\n%s", r.Stdout, r.Stderr)
	}
}

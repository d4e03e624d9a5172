package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink/policy"
)

const aboutTranscripts = `
## From nothing to a sink that can write

The output of the setup tool, built with ` + "`go build ./cmd/s3sink`" + `, for a new bucket and
a new user: the policies, and ` + "`Validate`" + ` before and after they are applied. The tests run these
commands on both servers and compare the output with this page. Durations and ids of requests are
not compared.
`

// transcripts lists the servers whose setup the page shows, with the flags and the
// way to apply the policy.
var transcripts = []struct{ column, flags, applied string }{
	{minio, "", "The document is now the user's policy, as by `mc admin policy create` and\n`mc admin policy attach`."},
	{versitygw, " -cross-account", "The second document is now the bucket's policy, as by `aws s3api put-bucket-policy`. versitygw has\nno policies of users."},
}

// buildCommand builds cmd/s3sink and returns the path of the program.
var buildCommand = sync.OnceValues(func() (string, error) {
	dir, err := tempDir()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "s3sink")
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/s3sink")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building cmd/s3sink: %w\n%s", err, out)
	}
	return program, nil
})

// transcript returns the output of a setup on one server, by a user who has a
// bucket but no policy.
func transcript(t *testing.T, s *site, flags, applied string) string {
	t.Helper()
	program, err := buildCommand()
	if err != nil {
		t.Fatal(err)
	}
	n := s.newcomer(t)
	var b strings.Builder
	setup := func(want int, args string) {
		t.Helper()
		out, code := n.command(t, program, args)
		if code != want {
			t.Errorf("setup %s: exit code %d, want %d", args, code, want)
		}
		fmt.Fprintf(&b, "\n```console\n$ ./s3sink setup %s\n%s$ echo $?\n%d\n```\n", args, out, code)
	}
	sink := "-bucket " + n.bucket + " -region " + region + " -endpoint $ENDPOINT"
	policies := " -writer " + n.arn + flags + " -print json"
	fmt.Fprintf(&b, "\n### %s\n", s.column)
	setup(0, sink+policies)
	b.WriteString("\nNo document is applied yet:\n")
	setup(1, sink)

	out, _ := n.command(t, program, sink+policies+" -json")
	var printed struct {
		Policies policy.Set `json:"policies"`
	}
	if err := json.Unmarshal([]byte(out), &printed); err != nil {
		t.Fatal(err)
	}
	if !n.apply(t, printed.Policies) {
		t.Fatal("the server does not take what was printed")
	}
	fmt.Fprintf(&b, "\n%s Then:\n", applied)
	setup(0, sink)

	cfg := n.sink(n.asWriter())
	cfg.Bucket = n.bucket
	if says := n.run(t, cfg); says != everything {
		t.Errorf("the sink: %s, want %s", says, everything)
	}
	fmt.Fprintf(&b, "\nA sink with these settings delivers: %s.\n", everything)
	return strings.NewReplacer(n.bucket, "acme-events", n.arn, userARN+"checkout", n.writer.id, "AKIACHECKOUT00000000").Replace(b.String())
}

// These patterns match the parts of the output that differ between runs.
var (
	durations  = regexp.MustCompile(` \([0-9.]+m?s\)\n`)
	requestIDs = regexp.MustCompile(`(?m)^(Request id: ).*$`)
)

// command runs "s3sink setup" with args as the newcomer.
func (n *newcomer) command(t *testing.T, program, args string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"setup"}, strings.Fields(strings.ReplaceAll(args, "$ENDPOINT", n.url))...)...)
	cmd.Env = environmentWithout("AWS_")
	cmd.Env = append(cmd.Env, "AWS_ACCESS_KEY_ID="+n.writer.id, "AWS_SECRET_ACCESS_KEY="+n.writer.secret,
		"AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Errorf("setup %s says:\n%s", args, &stderr)
	}
	out = durations.ReplaceAllString(string(text), " (…)\n")
	return requestIDs.ReplaceAllString(out, "${1}…"), cmd.ProcessState.ExitCode()
}

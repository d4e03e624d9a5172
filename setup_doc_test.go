package s3sink_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// causes lists the causes of each code, as docs/setup.md shows them: first the
// case of invalids, then the cause in words. Cases that differ only for the
// program are left out.
var causes = map[s3sink.ValidationCode][][2]string{
	s3sink.CodeIntermediateRole: {
		{"no credentials", "no credentials to assume the role with"},
		{"no credentials and no role", "no credentials"},
		{"unknown key", "the access key was deleted, or belongs to another partition of AWS"},
		{"expired base session", "the session that assumes the role has expired"},
		{"intermediate role refused", "an intermediate role does not trust the caller"},
	},
	s3sink.CodeExternalIDNotRequired: {
		{"external id not demanded", "the trust policy has no condition on `sts:ExternalId`"},
	},
	s3sink.CodeAssumeRole: {
		{"bad request, with", "the ARN, or a session longer than the role allows"},
		{"session policy too large", "a prefix too long for a session policy, or session tags"},
		{"STS is down", "STS is busy or unavailable"},
		{"STS hangs", "no connection to STS"},
		{"STS is a web page", "a proxy answers, or `Config.STSEndpoint` is not an STS"},
	},
	s3sink.CodeExternalIDRejected: {
		{"wrong external id", "a wrong external id; no such role; a caller that is not in the trust policy; or a caller without `sts:AssumeRole`"},
		{"trust policy", "the trust policy does not allow the caller, or not with this external id"},
		{"caller's permissions", "the caller may not `sts:AssumeRole`"},
		{"session tags", "the caller's session has tags, as with EKS Pod Identity"},
		{"external id missing", "the role demands an external id, and none is configured"},
		{"region disabled", "STS is not active in that region for the role's account"},
	},
	s3sink.CodePutObjectDenied: {
		{"prefix outside the policy", "no `s3:PutObject`, or not on this prefix"},
		{"no bucket policy", "the bucket is another account's, and its policy does not name the writer"},
		{"no use of the key", "the bucket's KMS key may not be used"},
		{"explicit deny", "a Deny in some policy"},
		{"session policy", "the session policy is too narrow"},
		{"no right to set ACLs", "`Config.ACL` without `s3:PutObjectAcl`"},
		{"no right to set tags", "`Config.Tags` without `s3:PutObjectTagging`"},
		{"another owner", "the bucket belongs to an account other than `Config.ExpectedBucketOwner`"},
		{"clock", "the clock is wrong"},
		{"key unknown to S3", "the access key was deleted"},
		{"secret wrong at S3", "the secret does not belong to the access key"},
		{"closed account", "AWS has closed the account or the bucket"},
	},
	s3sink.CodePutObject: {
		{"no such bucket", "no bucket of that name"},
		{"wrong region", "`Config.Region` is not the bucket's region"},
		{"no ACLs", "the bucket does not accept ACLs"},
		{"key does not exist", "the KMS key does not exist where the bucket is"},
		{"key is disabled", "the KMS key is disabled"},
		{"key is going", "the KMS key is scheduled for deletion"},
		{"asymmetric key", "the KMS key is asymmetric, or for signing"},
		{"token of the global STS", "a session of the global STS in an opt-in region"},
		{"busy", "S3 is busy or unavailable"},
		{"S3 hangs", "no connection to S3"},
	},
}

// statement matches a policy statement in a hint.
var statement = regexp.MustCompile(`\{"[^ ]*\}`)

// ofOneRequest matches the parts of a message that differ from run to run.
var ofOneRequest = regexp.MustCompile(`, RequestID: [^,]*, HostID: [^,]*`)

// codes has the codes in the order of the documented table.
var codes = []s3sink.ValidationCode{
	s3sink.CodeIntermediateRole, s3sink.CodeExternalIDNotRequired, s3sink.CodeAssumeRole,
	s3sink.CodeExternalIDRejected, s3sink.CodePutObjectDenied, s3sink.CodePutObject,
}

// Given docs/setup.md, then it shows the messages that Validate returns.
// `go test -run TestSetupPage -update .` writes them.
func TestSetupPage(t *testing.T) {
	t.Parallel()
	const file, begin, end = "docs/setup.md", "<!-- setup_doc_test.go writes this -->\n", "<!-- until here -->\n"
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(written), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no room for the codes", file)
	}
	var b strings.Builder
	for _, code := range codes {
		writeCode(t, &b, code)
	}
	want := before + begin + b.String() + end + after
	if string(written) == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not what Validate says: run `go test -run TestSetupPage -update .`", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeCode produces every cause of a code, and writes the resulting message of
// Validate.
func writeCode(t *testing.T, b *strings.Builder, code s3sink.ValidationCode) {
	t.Helper()
	for i, cause := range causes[code] {
		got := validationError(t, cause[0])
		if got.Code != code {
			t.Fatalf("%s: got %s, want %s", cause[0], got.Code, code)
		}
		if i == 0 {
			fmt.Fprintf(b, "### %s\n\n> %s\n\nCause: %s.\n\n| cause in detail | answer | advice |\n|---|---|---|\n", code, got.Message, got.Cause)
		}
		answer := strings.TrimSpace(fmt.Sprintf("%d %s", got.Status, got.AWSCode))
		switch {
		case got.Err != nil && got.Status == 0 && code != s3sink.CodeExternalIDNotRequired:
			answer = "none"
		case got.Status == 0:
			answer = "a session"
		}
		got.Hint = ofOneRequest.ReplaceAllString(got.Hint, "")
		hint := statement.ReplaceAllString(strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(got.Hint), "`$0`")
		fmt.Fprintf(b, "| %s | %s | %s |\n", cause[1], answer, hint)
	}
	b.WriteString("\n")
}

func validationError(t *testing.T, name string) *s3sink.ValidationError {
	t.Helper()
	tt, ok := invalids[name]
	if !ok {
		t.Fatalf("invalids has no case %q", name)
	}
	var got *s3sink.ValidationError
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		if tt.change != nil {
			tt.change(server, &cfg)
		}
		if tt.fault.Operation != "" {
			server.Inject(tt.fault)
		}
		atAWS(&cfg)
		if err := open(t, cfg).Validate(t.Context()); !errors.As(err, &got) {
			t.Fatalf("%s: got %v", name, err)
		}
	})
	return got
}

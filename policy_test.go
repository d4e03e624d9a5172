package s3sink_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// sessionPolicies are those of the AssumeRole calls that the server saw, in
// order.
func sessionPolicies(server *s3sinktest.Server) (all []string) {
	for _, r := range server.Requests() {
		if r.Operation == "AssumeRole" {
			all = append(all, r.Form.Get("Policy"))
		}
	}
	return all
}

const anyKey = `{"Effect":"Allow","Action":["kms:GenerateDataKey","kms:Decrypt"],"Resource":["*"],"Condition":{"StringLike":{"kms:ViaService":["s3.*.amazonaws.com","s3.*.amazonaws.com.cn"]}}}`

// Sessions may do what the sink does with them, and nothing else.
func TestSessionPolicy(t *testing.T) {
	t.Parallel()
	const key = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	for name, tt := range map[string]struct {
		change func(*s3sink.Config)
		want   string
	}{
		"bucket default": {func(*s3sink.Config) {},
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/segment-logs/*"]},` + anyKey + `]}`},
		"SSE-S3 and a prefix": {func(c *s3sink.Config) { c.Encryption = s3sink.SSES3(); c.Prefix = "a/b" },
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/a/b/segment-logs/*"]}]}`},
		"a prefix with a star": {func(c *s3sink.Config) { c.Encryption = s3sink.SSES3(); c.Prefix = "a*?$b" },
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/a${*}${?}${$}b/segment-logs/*"]}]}`},
		"a prefix beyond Latin-1": {func(c *s3sink.Config) { c.Encryption = s3sink.SSES3(); c.Prefix = "é日a" },
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/é*a/segment-logs/*"]}]}`},
		"a key": {func(c *s3sink.Config) { c.Encryption = s3sink.SSEKMS(key) },
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/segment-logs/*"]},` +
				`{"Effect":"Allow","Action":["kms:GenerateDataKey","kms:Decrypt"],"Resource":["` + key + `"],"Condition":{"StringLike":{"kms:ViaService":["s3.*.amazonaws.com","s3.*.amazonaws.com.cn"]}}}]}`},
		"ACL, tags, another format": {func(c *s3sink.Config) {
			c.Encryption, c.ACL, c.Tags, c.KeyFormat = s3sink.SSES3(), "bucket-owner-full-control", map[string]string{"a": "b"}, s3sink.HiveKeys
		},
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject","s3:PutObjectAcl","s3:PutObjectTagging"],"Resource":["arn:aws:s3:::s3sinktest/events/*"]}]}`},
		"opt-out": {func(c *s3sink.Config) {
			c.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, s3sinktest.ExternalID, s3sink.WithoutSessionPolicy(), s3sink.Via(s3sink.AccessKeys("AKIABASE", "base", "")))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cfg := s3sinktest.New(t)
			server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/base", AccessKeyID: "AKIABASE", SecretAccessKey: "base"})
			server.AddRole(s3sinktest.Role{
				ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: s3sinktest.ExternalID,
				Actions: []string{"s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging", "kms:GenerateDataKey"},
			})
			server.AddKMSKey(s3sinktest.KMSKey{ARN: key})
			tt.change(&cfg)
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
			if got := sessionPolicies(server); len(got) != 1 || got[0] != tt.want {
				t.Errorf("policies\n%q, want\n%q", got, tt.want)
			}
		})
	}
}

func TestSessionPolicyOfAChain(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	const last = "arn:aws-cn:iam::999999999999:role/Customer"
	server.AddRole(s3sinktest.Role{ARN: last, TrustedPrincipals: []string{s3sinktest.RoleARN}})
	cfg.Region = "cn-north-1" // where buckets have ARNs of that partition
	server.MoveBucket(s3sinktest.Bucket, cfg.Region)
	cfg.Encryption = s3sink.SSES3()
	cfg.Credentials = s3sink.AssumeRole(last, "", s3sink.Via(cfg.Credentials))
	sink := open(t, cfg)
	mustTrack(t, sink, struct{}{})
	mustClose(t, sink)
	want := []string{
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["sts:AssumeRole"],"Resource":["` + last + `"]}]}`,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws-cn:s3:::s3sinktest/segment-logs/*"]}]}`,
	}
	if got := sessionPolicies(server); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("policies\n%q, want\n%q", got, want)
	}
}

// A prefix that makes the session policy longer than STS takes is refused at
// once, and the way out named.
func TestSessionPolicyMustFit(t *testing.T) {
	t.Parallel()
	cfg := s3sink.Config{
		Bucket: "acme-events", SourceID: "x", Prefix: strings.Repeat("*", 600),
		Credentials: s3sink.AssumeRole(s3sinktest.RoleARN, "id", s3sink.Via(s3sink.AccessKeys("AKIA", "s", ""))),
	}
	_, err := cfg.Policies(s3sink.Setup{})
	var wrong *s3sink.ConfigError
	if !errors.As(err, &wrong) || wrong.Field != "Prefix" || !strings.Contains(err.Error(), "WithoutSessionPolicy") {
		t.Errorf("got %v", err)
	}
}

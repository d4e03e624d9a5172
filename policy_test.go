package s3sink_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

// sessionPolicies returns the session policies of the AssumeRole calls that the
// server received, in order.
func sessionPolicies(server *s3sinktest.Server) (all []string) {
	for _, r := range server.Requests() {
		if r.Operation == "AssumeRole" {
			all = append(all, r.Form.Get("Policy"))
		}
	}
	return all
}

const anyKey = `{"Effect":"Allow","Action":["kms:GenerateDataKey","kms:Decrypt"],"Resource":["*"],"Condition":{"StringLike":{"kms:ViaService":["s3.*.amazonaws.com","s3.*.amazonaws.com.cn"]}}}`

// Given any Config, then its session policy allows the requests of the sink,
// and nothing else.
func TestSessionPolicy(t *testing.T) {
	t.Parallel()
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
		"a key": {func(c *s3sink.Config) { c.Encryption = s3sink.SSEKMS(kmsKey) },
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/segment-logs/*"]},` +
				`{"Effect":"Allow","Action":["kms:GenerateDataKey","kms:Decrypt"],"Resource":["` + kmsKey + `"],"Condition":{"StringLike":{"kms:ViaService":["s3.*.amazonaws.com","s3.*.amazonaws.com.cn"]}}}]}`},
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
			server.AddKMSKey(s3sinktest.KMSKey{ARN: kmsKey})
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

// Given a prefix that makes the session policy longer than STS accepts, then
// the Config is refused, and the error names a fix.
func TestSessionPolicyMustFit(t *testing.T) {
	t.Parallel()
	cfg := s3sink.Config{
		Bucket: "acme-events", SourceID: "x", Prefix: strings.Repeat("*", 600),
		Credentials: s3sink.AssumeRole(s3sinktest.RoleARN, "id", s3sink.Via(s3sink.AccessKeys("AKIA", "s", ""))),
	}
	_, err := cfg.Policies(policy.Input{})
	var wrong *s3sink.ConfigError
	if !errors.As(err, &wrong) || wrong.Field != "Prefix" || !strings.Contains(err.Error(), "WithoutSessionPolicy") {
		t.Errorf("got %v", err)
	}
}

// Given a Config, when its policies are requested, then they contain the facts
// of the Config.
func TestConfigPolicies_Facts(t *testing.T) {
	t.Parallel()
	const role, hop = "arn:aws-cn:iam::123456789012:role/vendors/S3Sink", "arn:aws-cn:iam::210987654321:role/Exporter"
	for name, tt := range map[string]struct {
		cfg  s3sink.Config
		want policy.Sink
	}{
		"path in the bucket string, role": {
			s3sink.Config{Bucket: "acme-events/path/prefix", Credentials: s3sink.AssumeRole(s3sinktest.RoleARN, "workspace-7")},
			policy.Sink{Folder: "path/prefix/segment-logs/", Partition: "aws",
				Roles: []policy.Role{{ARN: s3sinktest.RoleARN, ExternalID: "workspace-7"}}},
		},
		"intermediate role, SSE-S3, ACL, tags, key format": {
			s3sink.Config{Bucket: "acme-events", Prefix: "it's a$b", KeyFormat: s3sink.HiveKeys, Encryption: s3sink.SSES3(),
				ACL: "bucket-owner-full-control", Tags: map[string]string{"team": "data"},
				Credentials: s3sink.AssumeRole(role, "workspace-7", s3sink.Via(s3sink.AssumeRole(hop, "")))},
			policy.Sink{Folder: "it's a$b/events/", Partition: "aws-cn", Encryption: "AES256", SetsACL: true, SetsTags: true,
				Roles: []policy.Role{{ARN: hop}, {ARN: role, ExternalID: "workspace-7"}}},
		},
		"access keys, KMS key": {
			s3sink.Config{Bucket: "acme-events", KeyFormat: s3sink.RudderStackKeys, Encryption: s3sink.SSEKMS(kmsKey),
				Credentials: s3sink.AccessKeys("AKIA", "secret", "")},
			policy.Sink{Folder: "rudder-logs/", Partition: "aws", Encryption: "aws:kms", KMSKey: kmsKey},
		},
		"region of another partition": {
			s3sink.Config{Bucket: "acme-events", Region: "us-gov-west-1"},
			policy.Sink{Folder: "segment-logs/", Partition: "aws-us-gov"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.SourceID, tt.want.Bucket = "checkout", "acme-events"
			in := policy.Input{Caller: serviceUser, Writer: serviceUser, BucketKMSKey: kmsKey, CrossAccount: true, Warehouse: true}
			got, err := tt.cfg.Policies(in)
			if err != nil {
				t.Fatal(err)
			}
			want, err := policy.For(tt.want, in)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Given a wrong Config and a wrong Input, when policies are requested, then the
// error names every wrong field of both.
func TestConfigPolicies_WrongFields(t *testing.T) {
	t.Parallel()
	_, err := s3sink.Config{}.Policies(policy.Input{Writer: "x"})
	var config *s3sink.ConfigError
	var input *policy.InputError
	if !errors.As(err, &config) || !errors.As(err, &input) || input.Field != "Input.Writer" || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("%v, want errors for Bucket, SourceID and Input.Writer", err)
	}
}

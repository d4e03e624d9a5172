package contract

import (
	"net/http"
	"testing"
	"time"

	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	account  = s3sinktest.AccountID
	userARN  = "arn:aws:iam::" + account + ":user/"
	roleARN  = "arn:aws:iam::" + account + ":role/"
	external = "contract-external-id"
)

func openDouble(t *testing.T, scheme string) *site {
	t.Helper()
	var opts []s3sinktest.Option
	if scheme == "https" {
		opts = append(opts, s3sinktest.TLS())
	}
	server := s3sinktest.NewServer(opts...)
	t.Cleanup(server.Close)
	s := &site{
		column: double, scheme: scheme,
		url: server.URL(), stsURL: server.URL(), sinkSTS: server.URL(), client: server.HTTPClient(),
		region:     region,
		bucket:     newBucketName(),
		owner:      keys{id: "AKIAOWNER00000000000", secret: "owner-secret"},
		kmsKey:     "arn:aws:kms:eu-west-1:" + account + ":key/known",
		role:       roleARN + "sink",
		externalID: external,
		writer:     keys{id: "AKIAWRITER0000000000", secret: "writer-secret"},
		caller:     keys{id: "AKIACALLER0000000000", secret: "caller-secret"},
		stranger:   keys{id: "AKIASTRANGER00000000", secret: "stranger-secret"},
	}
	s.addBucket = func(_ *testing.T, name string) { server.CreateBucket(name, region) }
	s.addUser = func(k keys, arn string) error {
		// Without a policy a user of the double may do everything.
		server.AddUser(s3sinktest.User{ARN: arn, AccessKeyID: k.id, SecretAccessKey: k.secret, Policy: mayPut("no-such-bucket", "none").String()})
		return nil
	}
	s.allow = func(_ *testing.T, n *newcomer, p policy.Set) error {
		server.AddUser(s3sinktest.User{ARN: n.arn, AccessKeyID: n.writer.id, SecretAccessKey: n.writer.secret, Policy: document(p, policy.Permissions).String()})
		return nil
	}
	server.CreateBucket(s.bucket, region)
	server.AddKMSKey(s3sinktest.KMSKey{ARN: s.kmsKey})
	s.kmsBucket = func(*testing.T) (string, answer) {
		name := newBucketName()
		server.CreateBucket(name, region)
		server.ConfigureBucket(name, s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: s.kmsKey})
		return name, answer{status: http.StatusOK}
	}

	limited := mayPut(s.bucket, "allowed")
	limited.Statement = append(limited.Statement, statement{
		Effect:   "Allow",
		Action:   []string{"kms:GenerateDataKey"},
		Resource: []string{s.kmsKey},
	})
	for _, u := range []s3sinktest.User{
		{ARN: userARN + "owner", AccessKeyID: s.owner.id, SecretAccessKey: s.owner.secret},
		{ARN: writerARN, AccessKeyID: s.writer.id, SecretAccessKey: s.writer.secret, Policy: limited.String()},
		{ARN: userARN + "caller", AccessKeyID: s.caller.id, SecretAccessKey: s.caller.secret},
		{ARN: userARN + "stranger", AccessKeyID: s.stranger.id, SecretAccessKey: s.stranger.secret},
	} {
		server.AddUser(u)
	}
	role := s3sinktest.Role{
		ARN:               s.role,
		TrustedPrincipals: []string{userARN + "caller", s.role},
		ExternalID:        external,
		Policy:            limited.String(),
	}
	server.AddRole(role)
	s.session = func(t *testing.T, life time.Duration) keys {
		t.Helper()
		short := role
		short.ARN = roleARN + "for-" + life.String()
		short.SessionLasts = life
		server.AddRole(short)
		return s.assumeRole(t, "RoleArn", short.ARN).session(t)
	}
	return s
}

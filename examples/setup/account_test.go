package main

import (
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	hop      = "arn:aws:iam::210987654321:role/Hop"
	stranger = "arn:aws:iam::210987654321:user/stranger"
	adminKey = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/admin"}, "Action": "kms:*", "Resource": "*"}]}`
)

// The policies are enough, and none of them can be left out: in accounts where
// nothing else is allowed, a sink can write with all of them, and not without
// any one.
func TestPoliciesAreEnoughAndNeeded(t *testing.T) {
	t.Parallel()
	byKeys := s3sink.AccessKeys(testKey, testSecret, "")
	for name, c := range map[string]struct {
		cfg    s3sink.Config
		setup  s3sink.Setup
		bucket s3sinktest.BucketSettings
		inside bool // the first role is in the caller's account: its trust policy is enough
	}{
		"role in another account": {
			cfg:    s3sink.Config{Credentials: s3sink.AssumeRole(testRole, "acme-42", s3sink.Via(byKeys))},
			setup:  s3sink.Setup{Caller: testUser},
			bucket: s3sinktest.BucketSettings{Owner: "123456789012"},
		},
		"role in the same account": {
			cfg:    s3sink.Config{Credentials: s3sink.AssumeRole("arn:aws:iam::210987654321:role/S3Sink", "", s3sink.Via(byKeys)), Prefix: "a?*$b"},
			setup:  s3sink.Setup{Caller: testUser},
			bucket: s3sinktest.BucketSettings{Owner: "210987654321"},
			inside: true,
		},
		"intermediate role, KMS key of the bucket, ACL": {
			cfg: s3sink.Config{ACL: "bucket-owner-full-control",
				Credentials: s3sink.AssumeRole(testRole, "acme-42", s3sink.Via(s3sink.AssumeRole(hop, "hop-1", s3sink.Via(byKeys))))},
			setup:  s3sink.Setup{Caller: testUser, BucketKMSKey: testKMSKey},
			bucket: s3sinktest.BucketSettings{Owner: "123456789012", Encryption: "aws:kms", KMSKeyID: testKMSKey},
			inside: true,
		},
		"user, bucket and key of another account": {
			cfg:    s3sink.Config{Credentials: byKeys, Encryption: s3sink.SSEKMS(testKMSKey), KeyFormat: s3sink.RudderStackKeys, Tags: map[string]string{"team": "data"}},
			setup:  s3sink.Setup{Writer: testUser, CrossAccount: true},
			bucket: s3sinktest.BucketSettings{Owner: "123456789012"},
		},
		"role, bucket and its key of another account": {
			cfg:    s3sink.Config{Credentials: s3sink.AssumeRole(hop, "acme-42", s3sink.Via(byKeys))},
			setup:  s3sink.Setup{Caller: testUser, CrossAccount: true, BucketKMSKey: testKMSKey},
			bucket: s3sinktest.BucketSettings{Owner: "123456789012", Encryption: "aws:kms", KMSKeyID: testKMSKey},
			inside: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := c.cfg
			cfg.Bucket, cfg.SourceID, cfg.Region = "acme-events", "setup", "eu-central-1"
			policies, err := cfg.Policies(c.setup)
			if err != nil {
				t.Fatal(err)
			}
			for i := range len(policies) + 1 {
				applied, without := slices.Clone(policies), "nothing"
				if i < len(policies) {
					applied = slices.Delete(applied, i, i+1)
					without = string(policies[i].Kind) + " of " + policies[i].Of
				}
				synctest.Test(t, func(t *testing.T) {
					report := tryWith(t, cfg, c.bucket, applied)
					want := i == len(policies) ||
						c.inside && policies[i].Kind == s3sink.PermissionsPolicy && policies[i].Of == c.setup.Caller
					if got := report.Err == nil; got != want {
						t.Errorf("without %s it can write: %t, want %t\n%s", without, got, want, report)
					}
				})
			}
		})
	}
}

// tryWith validates in accounts where some policies were applied.
func tryWith(t *testing.T, cfg s3sink.Config, bucket s3sinktest.BucketSettings, policies s3sink.Policies) *s3sink.ValidationReport {
	t.Helper()
	server := s3sinktest.NewServer(s3sinktest.InMemory())
	t.Cleanup(server.Close)
	there := newAccount(server)
	there.addUser(testUser, testKey, testSecret)
	there.addKey(s3sinktest.KMSKey{ARN: testKMSKey, Policy: adminKey})
	there.addBucket(cfg.Bucket, cfg.Region, bucket)
	for _, d := range policies {
		_ = there.apply(d) // fails where the trust policy is left out, and so the role
	}
	cfg = embedded(server, cfg)
	cfg.Logger = slog.New(slog.DiscardHandler)
	sink, err := s3sink.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close(t.Context())
	report, err := sink.ValidateReport(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestApplyToNobody(t *testing.T) {
	t.Parallel()
	server := s3sinktest.NewServer()
	t.Cleanup(server.Close)
	there := newAccount(server)
	for _, kind := range []s3sink.PolicyKind{s3sink.PermissionsPolicy, s3sink.BucketPolicy, s3sink.KeyPolicy} {
		if err := there.apply(s3sink.PolicyDocument{Kind: kind, Of: stranger}); err == nil {
			t.Errorf("%s was applied to nobody", kind)
		}
	}
}

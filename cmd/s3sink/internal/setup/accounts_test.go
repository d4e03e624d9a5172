package setup

import (
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/clitest"
	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	hopRole  = "arn:aws:iam::210987654321:role/Hop"
	stranger = "arn:aws:iam::210987654321:user/stranger"
	adminKey = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/admin"}, "Action": "kms:*", "Resource": "*"}]}`
)

// Given accounts that allow nothing else, when all policies of a Config are
// applied, then Validate passes. When one of them is missing, then it fails.
func TestPolicies_OneMissing(t *testing.T) {
	t.Parallel()
	byKeys := s3sink.AccessKeys(clitest.AccessKeyID, clitest.SecretAccessKey, "")
	for name, c := range map[string]struct {
		cfg    s3sink.Config
		setup  policy.Input
		bucket s3sinktest.BucketSettings
		// sameAccount means that the first role is in the caller's account. Its
		// trust policy is then enough, and the caller needs no policy.
		sameAccount bool
	}{
		"role in another account": {
			cfg:    s3sink.Config{Credentials: s3sink.AssumeRole(clitest.Role, "acme-42", s3sink.Via(byKeys))},
			setup:  policy.Input{Caller: clitest.User},
			bucket: s3sinktest.BucketSettings{Owner: "123456789012"},
		},
		"role in the same account": {
			cfg:         s3sink.Config{Credentials: s3sink.AssumeRole("arn:aws:iam::210987654321:role/S3Sink", "", s3sink.Via(byKeys)), Prefix: "a?*$b"},
			setup:       policy.Input{Caller: clitest.User},
			bucket:      s3sinktest.BucketSettings{Owner: "210987654321"},
			sameAccount: true,
		},
		"intermediate role, KMS key of the bucket, ACL": {
			cfg: s3sink.Config{ACL: "bucket-owner-full-control",
				Credentials: s3sink.AssumeRole(clitest.Role, "acme-42", s3sink.Via(s3sink.AssumeRole(hopRole, "hop-1", s3sink.Via(byKeys))))},
			setup:       policy.Input{Caller: clitest.User, BucketKMSKey: testKMSKey},
			bucket:      s3sinktest.BucketSettings{Owner: "123456789012", Encryption: "aws:kms", KMSKeyID: testKMSKey},
			sameAccount: true,
		},
		"user, bucket and key of another account": {
			cfg:    s3sink.Config{Credentials: byKeys, Encryption: s3sink.SSEKMS(testKMSKey), KeyFormat: s3sink.RudderStackKeys, Tags: map[string]string{"team": "data"}},
			setup:  policy.Input{Writer: clitest.User, CrossAccount: true},
			bucket: s3sinktest.BucketSettings{Owner: "123456789012"},
		},
		"role, bucket and its key of another account": {
			cfg:         s3sink.Config{Credentials: s3sink.AssumeRole(hopRole, "acme-42", s3sink.Via(byKeys))},
			setup:       policy.Input{Caller: clitest.User, CrossAccount: true, BucketKMSKey: testKMSKey},
			bucket:      s3sinktest.BucketSettings{Owner: "123456789012", Encryption: "aws:kms", KMSKeyID: testKMSKey},
			sameAccount: true,
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
					report := validateWith(t, cfg, c.bucket, applied)
					want := i == len(policies) ||
						c.sameAccount && policies[i].Kind == policy.Permissions && policies[i].Of == c.setup.Caller
					if got := report.Err == nil; got != want {
						t.Errorf("without %s the sink can write: %t, want %t\n%s", without, got, want, report)
					}
				})
			}
		})
	}
}

// validateWith returns the report of Validate in new accounts to which only the
// given policies have been applied.
func validateWith(t *testing.T, cfg s3sink.Config, bucket s3sinktest.BucketSettings, policies policy.Set) *s3sink.ValidationReport {
	t.Helper()
	server := s3sinktest.NewServer(s3sinktest.InMemory())
	t.Cleanup(server.Close)
	accounts := newAccounts(server)
	accounts.addUser(clitest.User, clitest.AccessKeyID, clitest.SecretAccessKey)
	accounts.addKey(s3sinktest.KMSKey{ARN: testKMSKey, Policy: adminKey})
	accounts.addBucket(cfg.Bucket, cfg.Region, bucket)
	for _, d := range policies {
		_ = accounts.apply(d) // fails for a role that has no trust policy, because it does not exist
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

// Given a policy of an unknown user, bucket or key, then apply returns an
// error.
func TestApply_UnknownPrincipal(t *testing.T) {
	t.Parallel()
	server := s3sinktest.NewServer()
	t.Cleanup(server.Close)
	accounts := newAccounts(server)
	for _, kind := range []policy.Kind{policy.Permissions, policy.BucketPolicy, policy.KeyPolicy} {
		if err := accounts.apply(policy.Policy{Kind: kind, Of: stranger}); err == nil {
			t.Errorf("%s of an unknown principal was applied", kind)
		}
	}
}

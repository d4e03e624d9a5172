package s3sink_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

// deliver tracks one event, and returns the reason if the event is not in S3 a
// minute later.
func deliver(t *testing.T, cfg s3sink.Config) error {
	t.Helper()
	sink := open(t, cfg)
	mustTrack(t, sink, struct{}{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return sink.Close(ctx)
}

// Given a bucket that encrypts with a KMS key, then the session policy allows
// the session to use that key: S3 asks for this permission at each PUT.
func TestSessionMayUseTheBucketsKey(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.AddKMSKey(s3sinktest.KMSKey{ARN: kmsKey})
		server.ConfigureBucket(s3sinktest.Bucket, s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: kmsKey})
		server.AddRole(s3sinktest.Role{
			ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: s3sinktest.ExternalID,
			Actions: []string{"s3:PutObject", "kms:GenerateDataKey"},
		})
		if err := deliver(t, cfg); err != nil {
			t.Error(err)
		}
		// With SSE-S3 the session policy allows no use of keys.
		cfg.Encryption = s3sink.SSES3()
		if err := deliver(t, cfg); err != nil {
			t.Error(err)
		}
		if policies := sessionPolicies(server); strings.Contains(policies[1], "kms:") || !strings.Contains(policies[0], "kms:GenerateDataKey") {
			t.Errorf("session policies %q", policies)
		}
	})
}

// Given SSE-S3, and a bucket whose default encryption is a KMS key, then
// objects are encrypted with SSE-S3, and no permission for a key is needed.
func TestSSES3NeedsNoKey(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.AddKMSKey(s3sinktest.KMSKey{ARN: kmsKey})
		server.ConfigureBucket(s3sinktest.Bucket, s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: kmsKey})
		if err := deliver(t, cfg); err == nil { // the role has s3:PutObject only
			t.Error("an object was encrypted with a key that the role may not use")
		}
		cfg.Encryption = s3sink.SSES3()
		if err := deliver(t, cfg); err != nil {
			t.Error(err)
		}
	})
}

// Given a chain of roles, then the session of each hop may do only what the
// sink needs, even if its role may do more.
func TestHopsAreScoped(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		twoHops(server, &cfg)
		server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: s3sinktest.ExternalID}) // no policy: the role may do everything
		if err := deliver(t, cfg); err != nil {
			t.Fatal(err)
		}
		policies := sessionPolicies(server)
		first := scoped(t, server, policies[0])
		if _, err := put(t, server, first, "segment-logs/x"); status(err) != http.StatusForbidden {
			t.Errorf("the first hop's session put an object: %v", err)
		}
	})
}

// scoped returns a session of s3sinktest's role with a policy that a sink sent.
func scoped(t *testing.T, server *s3sinktest.Server, policy string) aws.CredentialsProvider {
	t.Helper()
	server.AddUser(s3sinktest.User{AccessKeyID: "AKIAANYBODY", SecretAccessKey: "x"})
	client := sts.New(sts.Options{
		BaseEndpoint: aws.String(server.URL()), HTTPClient: server.HTTPClient(), Region: s3sinktest.Region,
		Credentials: credentials.NewStaticCredentialsProvider("AKIAANYBODY", "x", ""),
	})
	server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}})
	out, err := client.AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String(s3sinktest.RoleARN), RoleSessionName: aws.String("thief"), Policy: &policy,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := out.Credentials
	return credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

func put(t *testing.T, server *s3sinktest.Server, as aws.CredentialsProvider, key string) (*s3.PutObjectOutput, error) {
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(server.URL()), HTTPClient: server.HTTPClient(), Region: s3sinktest.Region,
		UsePathStyle: true, Credentials: as, Retryer: aws.NopRetryer{},
	})
	return client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(s3sinktest.Bucket), Key: &key, Body: strings.NewReader("x"),
	})
}

func status(err error) int {
	var re interface{ HTTPStatusCode() int }
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// Given a prefix with a star, then the session may write below that prefix
// only: the star is not a wildcard in the session policy.
func TestPrefixWithAStarIsScoped(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.Prefix = "a*b/${c}?"
		if err := deliver(t, cfg); err != nil {
			t.Fatal(err)
		}
		thief := scoped(t, server, sessionPolicies(server)[0])
		for key, want := range map[string]int{
			"a*b/${c}?/segment-logs/x":  0,
			"aXb/${c}?/segment-logs/x":  http.StatusForbidden,
			"a*b/${c}X/segment-logs/x":  http.StatusForbidden,
			"a*b/c?/segment-logs/x":     http.StatusForbidden,
			"a*b/${c}?/segment-logsX":   http.StatusForbidden,
			"segment-logs/x":            http.StatusForbidden,
			"a*b/${c}?/other/x":         http.StatusForbidden,
			"a*b/${c}?/segment-logs/é/": 0,
		} {
			if _, err := put(t, server, thief, key); status(err) != want {
				t.Errorf("%s: status %d, want %d", key, status(err), want)
			}
		}
	})
}

// Given an unscoped session, then it may do everything that the role may do.
func TestUnscopedSession(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, s3sinktest.ExternalID, s3sink.Via(service), s3sink.WithoutSessionPolicy())
		if err := deliver(t, cfg); err != nil {
			t.Error(err)
		}
		if policies := sessionPolicies(server); policies[0] != "" {
			t.Errorf("session policies %q", policies)
		}
	})
}

// Given a session policy that is too large for STS, then uploads are parked
// with an error that names a fix.
func TestSessionPolicyTooLarge(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 400, Code: "PackedPolicyTooLarge"})
		err := deliver(t, cfg)
		if err == nil || !strings.Contains(err.Error(), "use WithoutSessionPolicy") {
			t.Errorf("got %v", err)
		}
	})
}

// world is a Config, the input for its policies, and the settings of its
// bucket.
type world struct {
	cfg    func(*s3sink.Config)
	in     policy.Input
	bucket s3sinktest.BucketSettings
}

const (
	kmsKey       = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	ownAccount   = s3sinktest.AccountID
	customerRole = "arn:aws:iam::999999999999:role/Customer"
)

var worlds = map[string]world{
	"role": {func(*s3sink.Config) {}, policy.Input{}, s3sinktest.BucketSettings{}},
	"role and the bucket's key": {func(*s3sink.Config) {},
		policy.Input{BucketKMSKey: kmsKey}, s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: kmsKey}},
	"own key, ACL and tags": {func(c *s3sink.Config) {
		c.Encryption, c.ACL, c.Tags = s3sink.SSEKMS(kmsKey), "bucket-owner-full-control", map[string]string{"a": "b"}
	}, policy.Input{}, s3sinktest.BucketSettings{}},
	"prefix": {func(c *s3sink.Config) { c.Bucket += "/path/prefix"; c.KeyFormat = s3sink.HiveKeys }, policy.Input{}, s3sinktest.BucketSettings{}},
	"two hops": {func(c *s3sink.Config) {
		c.Credentials = s3sink.AssumeRole(customerRole, "customer-7", s3sink.Via(c.Credentials))
	}, policy.Input{CrossAccount: true}, s3sinktest.BucketSettings{Owner: ownAccount}},
	"access keys": {func(c *s3sink.Config) { c.Credentials = service }, policy.Input{}, s3sinktest.BucketSettings{}},
	"access keys of another account": {func(c *s3sink.Config) {
		c.Credentials, c.Encryption = service, s3sink.SSEKMS(kmsKey)
	}, policy.Input{CrossAccount: true}, s3sinktest.BucketSettings{Owner: ownAccount}},
}

const serviceUser = "arn:aws:iam::210987654321:user/service"

// apply configures the world so that exactly the policies are in force.
func apply(t *testing.T, server *s3sinktest.Server, w world, policies policy.Set) {
	t.Helper()
	nothing := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"s3:DeleteObject","Resource":"*"}]}`
	user := s3sinktest.User{ARN: serviceUser, AccessKeyID: "AKIAS3SINKTEST000000", SecretAccessKey: "s3sinktest/secret/access/key/000000000000", Policy: nothing}
	roles := map[string]*s3sinktest.Role{}
	role := func(arn string) *s3sinktest.Role {
		if roles[arn] == nil {
			roles[arn] = &s3sinktest.Role{ARN: arn, Policy: nothing}
		}
		return roles[arn]
	}
	key := s3sinktest.KMSKey{ARN: kmsKey, Aliases: []string{"alias/logs"}} // the key policy delegates to IAM in its account
	for _, d := range policies {
		if len(d.Document.Statement) == 0 {
			continue
		}
		switch text := d.Document.String(); {
		case d.Kind == policy.TrustPolicy:
			trust := d.Document.Statement[0]
			role(d.Of).TrustedPrincipals = []string{trust.Principal["AWS"]}
			if ids := trust.Condition["StringEquals"]["sts:ExternalId"]; ids != nil {
				role(d.Of).ExternalID = ids[0]
			}
		case sameAccountKey(w, d):
		case d.Kind == policy.KeyPolicy:
			key.Policy = text
		case d.Kind == policy.BucketPolicy:
			w.bucket.Policy = text
		case strings.Contains(d.Of, ":role/"):
			role(d.Of).Policy = text
		default:
			user.Policy = text
		}
	}
	server.AddUser(user)
	for _, r := range roles {
		server.AddRole(*r)
	}
	server.AddKMSKey(key)
	server.ConfigureBucket(s3sinktest.Bucket, w.bucket)
}

// without returns a copy of the policies without one action.
func without(policies policy.Set, document, statement int, action string) policy.Set {
	less := slices.Clone(policies)
	d := &less[document]
	d.Document.Statement = slices.Clone(d.Document.Statement)
	s := &d.Document.Statement[statement]
	s.Action = slices.DeleteFunc(slices.Clone(s.Action), func(a string) bool { return a == action })
	if len(s.Action) == 0 {
		d.Document.Statement = slices.Delete(d.Document.Statement, statement, statement+1)
	}
	return less
}

// Given the policies of a Config, then the sink works, and with any one action
// removed it does not.
func TestPoliciesSufficeAndAreLeast(t *testing.T) {
	t.Parallel()
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				w.cfg(&cfg)
				w.in.Caller, w.in.Writer = serviceUser, serviceUser
				policies, err := cfg.Policies(w.in)
				if err != nil {
					t.Fatal(err)
				}
				apply(t, server, w, policies)
				if err := open(t, cfg).Validate(t.Context()); err != nil {
					t.Errorf("with the policies: %v", err)
				}
				if err := deliver(t, cfg); err != nil {
					t.Errorf("with the policies: %v", err)
				}
				for i, d := range policies {
					for j, s := range d.Document.Statement {
						for _, action := range s.Action {
							if sameAccountKey(w, d) {
								continue
							}
							apply(t, server, w, without(policies, i, j, action))
							what := fmt.Sprintf("without %s in the %s of %s", action, d.Kind, d.Of)
							if err := deliver(t, cfg); err == nil {
								t.Errorf("%s: it still works", what)
							}
							if err := open(t, cfg).Validate(t.Context()); err == nil {
								t.Errorf("%s: Validate passes", what)
							}
						}
					}
				}
			})
		})
	}
}

// sameAccountKey reports whether the sink works without the key policy d. In
// one account the key of this world delegates access to IAM; other keys may
// not, and need d.
func sameAccountKey(w world, d policy.Policy) bool {
	return d.Kind == policy.KeyPolicy && !w.in.CrossAccount
}

package s3sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/policy"
)

// Credentials are the identity with which the sink writes. The constructors are
// [AssumeRole], [AccessKeys], [Ambient] and [Provider]. The sink never falls back
// from one identity to another. Values are immutable, and sinks may share them.
type Credentials interface {
	check(*configErrors)
	provider(awsEnvironment) aws.CredentialsProvider
	fmt.Stringer // never a secret
}

// awsEnvironment is the input for making credentials providers.
type awsEnvironment struct {
	config      aws.Config // of the process: ambient credentials, HTTP client
	stsRegion   string
	stsEndpoint string
	policy      func() policy.Document // returns the session policy; called for each new session
	refreshed   func(CredentialRefresh)
	copyUser    aws.CredentialsProvider // or nil
	guard       guard
}

// Ambient uses the credentials that the AWS SDK finds in the environment of the
// process: environment variables, shared config files, web identity, container
// roles or instance roles. It is the default.
//
// If RUDDER_AWS_S3_COPY_USER_ACCESS_KEY_ID and RUDDER_AWS_S3_COPY_USER_ACCESS_KEY
// are both set, objects are written with those keys instead, as in RudderStack.
// These keys are not used to assume a role, and they are ignored if Config.AWS is
// set.
func Ambient() Credentials { return ambient{} }

type ambient struct{}

func (ambient) check(*configErrors) {}
func (ambient) String() string      { return "ambient" }
func (ambient) provider(env awsEnvironment) aws.CredentialsProvider {
	switch {
	case env.copyUser != nil:
		return env.copyUser
	case env.config.Credentials == nil:
		return noCredentials{}
	}
	return env.cached(env.config.Credentials)
}

// cached returns a provider that keeps the credentials of p until they expire.
func (env awsEnvironment) cached(p aws.CredentialsProvider) aws.CredentialsProvider {
	if cache, ok := p.(*aws.CredentialsCache); ok {
		return cache
	}
	return aws.NewCredentialsCache(guardedProvider{p, env.guard})
}

const providerCode = "the credentials provider"

// guardedProvider turns a panic of a provider into an error. It is below the
// cache, which calls providers on a goroutine of the AWS SDK: a panic there could
// not be recovered further up.
type guardedProvider struct {
	provider aws.CredentialsProvider
	guard    guard
}

// Retrieve implements [aws.CredentialsProvider].
func (p guardedProvider) Retrieve(ctx context.Context) (creds aws.Credentials, err error) {
	err = p.guard.call(providerCode, func() (err error) {
		creds, err = p.provider.Retrieve(ctx)
		return err
	})
	return creds, err
}

// HandleFailToRefresh implements [aws.HandleFailRefreshCredentialsCacheStrategy]
// if the provider implements it.
func (p guardedProvider) HandleFailToRefresh(ctx context.Context, last aws.Credentials, failed error) (creds aws.Credentials, err error) {
	strategy, ok := p.provider.(aws.HandleFailRefreshCredentialsCacheStrategy)
	if !ok {
		return aws.Credentials{}, failed
	}
	err = p.guard.call(providerCode, func() (err error) {
		creds, err = strategy.HandleFailToRefresh(ctx, last, failed)
		return err
	})
	return creds, err
}

// copyUser returns the access keys of RudderStack's environment variables, or nil
// unless both are set.
func copyUser() aws.CredentialsProvider {
	id, secret := os.Getenv("RUDDER_AWS_S3_COPY_USER_ACCESS_KEY_ID"), os.Getenv("RUDDER_AWS_S3_COPY_USER_ACCESS_KEY")
	if id == "" || secret == "" {
		return nil
	}
	return credentials.NewStaticCredentialsProvider(id, secret, "")
}

// noCredentials is the provider of a Config.AWS without credentials.
type noCredentials struct{}

func (noCredentials) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{}, errors.New("Config.AWS has no credentials; set them there or in Config.Credentials")
}

// AccessKeys uses fixed access keys. token is "" for the keys of an IAM user.
// Segment and RudderStack recommend roles instead, and so does s3sink.
func AccessKeys(id, secretKey, token string) Credentials {
	return accessKeys{id: id, secretKey: newSecret(secretKey), token: newSecret(token)}
}

type accessKeys struct {
	id               string
	secretKey, token secret
}

func (k accessKeys) String() string { return "access key " + k.id }

func (k accessKeys) check(errs *configErrors) {
	if k.id == "" {
		errs.add("Credentials.AccessKeyID", "", "the id of an access key")
	}
	if k.secretKey.reveal() == "" {
		errs.add("Credentials.SecretAccessKey", "", "the secret of the access key")
	}
}

func (k accessKeys) provider(awsEnvironment) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(k.id, k.secretKey.reveal(), k.token.reveal())
}

// Provider uses the credentials of p, which the sink caches until they expire. A
// panic of p parks uploads with an error. One case is not caught: an
// aws.CredentialsCache calls its inner provider on another goroutine, where a
// panic ends the process.
func Provider(p aws.CredentialsProvider) Credentials { return custom{&p} }

// custom holds a pointer, because fmt would print the fields of the provider.
type custom struct{ p *aws.CredentialsProvider }

func (c custom) String() string { return "custom provider" }
func (c custom) provider(env awsEnvironment) aws.CredentialsProvider {
	return env.cached(*c.p)
}
func (c custom) check(errs *configErrors) {
	if *c.p == nil {
		errs.add("Credentials.Provider", "nil", "a provider")
	}
}

// AssumeRole writes with a session of an IAM role. The ambient identity assumes
// the role, or another identity with [Via]. externalID is "" if the role requires
// none. Sessions are cached, and renewed in the background before they expire.
// While STS is unavailable, the current session is used until it expires.
func AssumeRole(roleARN, externalID string, opts ...RoleOption) Credentials {
	r := role{arn: roleARN, externalID: externalID, base: Ambient(), session: "s3sink"}
	for _, opt := range opts {
		if opt != nil {
			opt(&r)
		}
	}
	return r
}

// RoleOption is an option of [AssumeRole].
type RoleOption func(*role)

// Via assumes the role with the identity base instead of the ambient identity. If
// base is a role itself, the roles form a chain, of any length.
func Via(base Credentials) RoleOption { return func(r *role) { r.base = base } }

// WithSessionName sets the session name that the owner of the role sees in
// CloudTrail: 2 to 64 letters, digits or _+=,.@-. It defaults to "s3sink".
func WithSessionName(name string) RoleOption { return func(r *role) { r.session = name } }

// WithDuration sets the duration of sessions. The minimum is 15 minutes. The
// maximum is 12 hours or the maximum of the role, and one hour if base is a role
// too. It defaults to one hour.
func WithDuration(d time.Duration) RoleOption { return func(r *role) { r.duration = d } }

// WithoutSessionPolicy gives sessions all permissions of the role. By default a
// session policy restricts each session to the permissions that the sink needs:
// to put objects below the configured prefix, or to assume the next role of a
// chain. STS limits the size of session policy and session tags together, and
// answers PackedPolicyTooLarge if tags or a long prefix use up that size.
func WithoutSessionPolicy() RoleOption { return func(r *role) { r.unrestricted = true } }

type role struct {
	arn, externalID, session string
	duration                 time.Duration
	base                     Credentials
	unrestricted             bool
}

func (r role) String() string { return "role " + r.arn }

// The patterns are from the reference of the STS API.
var (
	roleARN     = regexp.MustCompile(`^arn:(aws|aws-cn|aws-us-gov):iam::[0-9]{12}:role/([\x21-\x7e]+/)?[\w+=,.@-]{1,64}$`)
	externalIDs = regexp.MustCompile(`^[\w+=,.@:/-]{2,}$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

const (
	maxExternalID  = 1224
	minSession     = 15 * time.Minute
	maxSession     = 12 * time.Hour
	defaultSession = time.Hour // also the maximum of a chained role
)

func (r role) check(errs *configErrors) {
	if !roleARN.MatchString(r.arn) {
		errs.add("Credentials.RoleARN", r.arn, "arn:aws:iam::ACCOUNT_ID:role/ROLE_NAME, with 12 digits of account id")
	}
	if r.externalID != "" && (len(r.externalID) > maxExternalID || !externalIDs.MatchString(r.externalID)) {
		errs.add("Credentials.ExternalID", r.externalID, "2 to 1224 letters, digits or _+=,.@:/-")
	}
	if !sessionName.MatchString(r.session) {
		errs.add("Credentials.SessionName", r.session, "2 to 64 letters, digits or _+=,.@-")
	}
	_, chained := r.base.(role)
	switch {
	case r.duration == 0:
	case r.duration < minSession || r.duration > maxSession:
		errs.add("Credentials.Duration", r.duration.String(), "15m to 12h")
	case chained && r.duration > defaultSession:
		errs.add("Credentials.Duration", r.duration.String(), "at most 1h for a role assumed by a role")
	}
	if r.base == nil {
		errs.add("Credentials.Via", "nil", "the credentials that assume the role")
		return
	}
	r.base.check(errs)
}

func (r role) provider(env awsEnvironment) aws.CredentialsProvider {
	hop := env
	hop.policy = func() policy.Document { return policy.AssumeRolePolicy(r.arn) }
	hop.copyUser = nil
	base := r.base.provider(hop)
	return newSession(r.arn, r.assume(env, base, r.externalID), base, env.refreshed)
}

// assume returns a provider that calls STS every time.
func (r role) assume(env awsEnvironment, base aws.CredentialsProvider, externalID string) aws.CredentialsProvider {
	client := localClock{stsClient(env, base)}
	options := func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = r.session
		o.Duration = cmp.Or(r.duration, defaultSession)
		if externalID != "" {
			o.ExternalID = &externalID
		}
		if !r.unrestricted {
			o.Policy = aws.String(env.policy().Compact())
		}
	}
	return guardedProvider{aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		return stscreds.NewAssumeRoleProvider(client, r.arn, options).Retrieve(ctx)
	}), env.guard}
}

func stsClient(env awsEnvironment, base aws.CredentialsProvider) *sts.Client {
	return sts.NewFromConfig(env.config, func(o *sts.Options) {
		o.Region = env.stsRegion
		o.Credentials = base
		if env.stsEndpoint != "" {
			o.BaseEndpoint = &env.stsEndpoint
		}
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.RateLimiter = ratelimit.None // the SDK's quota would drain in an outage
		})
	})
}

// environment returns the awsEnvironment for a bucket in a region.
type environment func(s3Region string) awsEnvironment

func providerIn(c Credentials, env environment) func(s3Region string) aws.CredentialsProvider {
	return func(s3Region string) aws.CredentialsProvider { return c.provider(env(s3Region)) }
}

// environmentIn returns the environment of a Config. STS is asked in the region of
// the bucket, unless Config.STSRegion is set.
func environmentIn(cfg *Config, base aws.Config, session func() policy.Document, refreshed func(CredentialRefresh)) environment {
	var user aws.CredentialsProvider
	if cfg.AWS == nil {
		user = copyUser()
	}
	return func(s3Region string) awsEnvironment {
		return awsEnvironment{
			config:      base,
			stsRegion:   cmp.Or(cfg.STSRegion, s3Region),
			stsEndpoint: cfg.STSEndpoint,
			policy:      session,
			refreshed:   refreshed,
			copyUser:    user,
			guard:       guard{cfg.Logger},
		}
	}
}

// ambientSTSEndpoint returns the STS endpoint that the environment or a profile
// names, or "".
func ambientSTSEndpoint(base aws.Config) string {
	return aws.ToString(sts.NewFromConfig(base).Options().BaseEndpoint)
}

// checkAmbientEndpoints checks endpoints from the environment or a profile by the
// rules for endpoints in the Config, and logs them.
func (c *Config) checkAmbientEndpoints(base aws.Config) error {
	var errs configErrors
	check := func(field, configured, ambient string) {
		if configured != "" || ambient == "" {
			return
		}
		before := len(errs)
		c.checkEndpoint(&errs, field+", as the AWS configuration has it,", ambient)
		if len(errs) == before {
			c.Logger.Info("s3sink: the AWS configuration of the environment names an endpoint; the sink uses it; set the field in Config to use another one",
				slog.String("field", field), slog.String("endpoint", ambient))
		}
	}
	check("Endpoint", c.Endpoint, s3put.AmbientEndpoint(base))
	check("STSEndpoint", c.STSEndpoint, ambientSTSEndpoint(base))
	return errors.Join(errs...)
}

// secret is a string that is never printed. It is a pointer, because fmt prints
// unexported fields of other structs without calling their methods.
type secret struct{ p *string }

const redacted = "REDACTED"

func newSecret(s string) secret { return secret{&s} }

func (s secret) reveal() string             { return *s.p }
func (secret) String() string               { return redacted }
func (secret) GoString() string             { return redacted }
func (secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (secret) LogValue() slog.Value         { return slog.StringValue(redacted) }

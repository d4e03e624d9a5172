package s3sink

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink/internal/s3put"
	"github.com/s3sink/s3sink/policy"
)

// Validate checks that the sink can write: it asks for credentials as uploads
// do, but anew, and puts dummy-object.txt into the folder of the key format,
// with the headers of uploads. That takes s3:PutObject and nothing else. The
// object is left there, to be deleted by whoever may; a later Validate replaces
// it.
//
// It returns nil, or a [*ValidationError] with the message that Segment's
// destination documents for the case. [Sink.ValidateReport] also says what was
// tried.
//
// Validate is meant for setup. It can be called at any time, also while events
// are tracked, and ctx ends it at every step; each call of STS is given up after
// 10 seconds, and the upload after 30. On success uploads that are parked are
// tried again at once. [Sink.Close] ends it, and then it returns [ErrClosed].
func (s *Sink) Validate(ctx context.Context) error {
	report, err := s.ValidateReport(ctx)
	if err != nil {
		return err
	}
	if report.Err != nil {
		return report.Err
	}
	return nil
}

// ValidateReport is [Sink.Validate] for a person who wants to see each step. The
// error is [ErrClosed] or nil; what went wrong is in the report.
func (s *Sink) ValidateReport(ctx context.Context) (*ValidationReport, error) {
	if s.batcher.isClosed() {
		return nil, ErrClosed
	}
	ctx, done, ok := s.validations.begin(ctx)
	if !ok {
		return nil, ErrClosed
	}
	defer done()
	v := &validation{sink: s, report: &ValidationReport{Bucket: s.bucket, Key: s.dummyKey()}}
	failed := v.run(ctx)
	switch {
	case failed == nil:
		s.client.Renew() // theirs may be from before what was mended
		s.uploader.Unpark()
	case errors.Is(context.Cause(ctx), ErrClosed):
		return nil, ErrClosed
	case ctx.Err() != nil && failed.Status == 0:
		failed.Hint = fmt.Sprintf("The context of Validate ended before there was an answer (%v). %s", context.Cause(ctx), failed.Hint)
	}
	v.report.Err = failed
	return v.report, nil
}

// validations are those under way. Close ends them before it lets go of the
// credentials and connections that they use.
type validations struct {
	mu    sync.Mutex
	ended bool
	ends  map[*context.CancelCauseFunc]struct{}
	wg    sync.WaitGroup
}

// begin returns a context for one validation, and what to call behind it.
func (v *validations) begin(ctx context.Context) (_ context.Context, done func(), ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return ctx, nil, false
	}
	ctx, end := context.WithCancelCause(ctx)
	if v.ends == nil {
		v.ends = map[*context.CancelCauseFunc]struct{}{}
	}
	v.ends[&end] = struct{}{}
	v.wg.Add(1)
	return ctx, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.ends, &end)
		end(nil)
		v.wg.Done()
	}, true
}

// end ends all and waits for them. None begins after it.
func (v *validations) end() {
	v.mu.Lock()
	v.ended = true
	for end := range v.ends {
		(*end)(ErrClosed)
	}
	v.mu.Unlock()
	v.wg.Wait()
}

const dummyObject = "dummy-object.txt"

// dummyKey is in the folder of real keys, so that the same policy covers both;
// in a folder of its own where a reader might take it for data. Names that
// begin with _ are hidden from Hive, Spark, Trino and Athena.
func (s *Sink) dummyKey() string {
	folder := s.cfg.KeyFormat.folder()
	if folder != SegmentKeys.folder() && folder != RudderStackKeys.folder() {
		folder += "_s3sink/"
	}
	return s.prefix + folder + dummyObject
}

// Steps of a validation.
const (
	StepRegion      = "region"
	StepCredentials = "credentials"
	StepWithoutID   = "role without external id"
	StepRole        = "role"
	StepPutObject   = "put object"
)

const (
	putTimeout = 30 * time.Second

	// propagation is the wait before what was refused is tried once more: a
	// change of IAM takes some seconds to be known everywhere.
	propagation = 5 * time.Second
)

// validation is one run.
type validation struct {
	sink    *Sink
	report  *ValidationReport
	waited  bool   // for a change to be known
	caller  string // ARN of the identity that assumes the role, if it is known
	account string // of the caller
}

func (v *validation) run(ctx context.Context) *ValidationError {
	region, err := v.region(ctx)
	if err != nil {
		return err
	}
	env := v.sink.env(region)
	env.refreshed = func(CredentialRefresh) {} // a renewal is not what this is
	creds, err := v.credentials(ctx, env)
	if err != nil {
		return err
	}
	return v.putObject(ctx, creds)
}

func (v *validation) region(ctx context.Context) (string, *ValidationError) {
	step := v.begin(StepRegion, "find the region of bucket "+v.sink.bucket)
	var region string
	err := v.sink.guard.call(awsCode, func() (err error) {
		region, err = v.sink.client.Region(ctx)
		return err
	})
	if err != nil {
		return "", v.fail(step, putCode(err), err)
	}
	v.report.Region = region
	from := "as S3 says"
	switch {
	case v.sink.cfg.Region != "":
		from = "as configured"
	case v.sink.cfg.Endpoint != "":
		from = "by default: the endpoint is not AWS"
	}
	step.ok(region + ", " + from)
	return region, nil
}

// credentials returns those for the object, fresh.
func (v *validation) credentials(ctx context.Context, env awsEnvironment) (aws.Credentials, *ValidationError) {
	r, ok := v.sink.cfg.Credentials.(role)
	if !ok {
		step := v.begin(StepCredentials, v.sink.cfg.Credentials.String())
		p := v.sink.cfg.Credentials.provider(env)
		defer closeProvider(p)
		creds, err := retrieve(ctx, p)
		if err != nil {
			return creds, v.fail(step, CodeIntermediateRole, err)
		}
		step.ok("access key " + creds.AccessKeyID)
		v.skip(StepWithoutID, "no role is configured")
		v.skip(StepRole, "no role is configured")
		return creds, nil
	}

	hop := env
	hop.policy, hop.copyUser = func() policy.Document { return policy.AssumeRolePolicy(r.arn) }, nil
	base := r.base.provider(hop)
	defer closeProvider(base)
	if err := v.base(ctx, env, r, base); err != nil {
		return aws.Credentials{}, err
	}
	if r.externalID == "" {
		v.skip(StepWithoutID, "no external id is configured")
	} else if err := v.withoutID(ctx, r, r.assume(env, base, "")); err != nil {
		return aws.Credentials{}, err
	}
	return v.role(ctx, r, r.assume(env, base, r.externalID))
}

// base checks who assumes the role. Intermediate roles are assumed. Keys alone
// prove nothing, so STS is asked whose they are, which takes no permission.
func (v *validation) base(ctx context.Context, env awsEnvironment, r role, base aws.CredentialsProvider) *ValidationError {
	step := v.begin(StepCredentials, r.base.String())
	creds, err := retrieve(ctx, base)
	if err != nil {
		return v.fail(step, CodeIntermediateRole, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stsTimeout)
	defer cancel()
	var me *sts.GetCallerIdentityOutput
	err = v.sink.guard.call(awsCode, func() (err error) {
		me, err = stsClient(env, base).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		return err
	})
	switch {
	case err == nil:
		step.As, v.account = oneLine(aws.ToString(me.Arn)), aws.ToString(me.Account)
		v.caller = step.As
		step.ok("")
	case env.refusesCaller(s3put.Describe(err)):
		return v.fail(step, CodeIntermediateRole, err)
	default: // other STSs do not have the call; the next step will tell
		step.ok("access key " + creds.AccessKeyID + ", whose is not known")
	}
	return nil
}

// withoutID checks that the role cannot be assumed without the external id:
// whoever learnt its ARN could have events written to the bucket. The session
// that it must not get is used for nothing.
func (v *validation) withoutID(ctx context.Context, r role, assume aws.CredentialsProvider) *ValidationError {
	step := v.begin(StepWithoutID, "assume "+r.arn+" without the external id, which must fail")
	_, err := retrieve(ctx, assume)
	if err == nil {
		return v.fail(step, CodeExternalIDNotRequired, errNotRequired)
	}
	e := s3put.Describe(err)
	switch {
	case e.Status != http.StatusForbidden:
		return v.fail(step, CodeAssumeRole, err)
	case e.Code == "AccessDenied":
		step.ok("refused, as it must be")
	default:
		step.ok("proves nothing: " + answer(e))
	}
	return nil
}

func (v *validation) role(ctx context.Context, r role, assume aws.CredentialsProvider) (aws.Credentials, *ValidationError) {
	tried := "assume " + r.arn
	if r.externalID != "" {
		tried += " with external id " + r.externalID
	}
	step := v.begin(StepRole, tried)
	creds, err := retrieve(ctx, assume)
	if v.waitForChange(ctx, err) {
		creds, err = retrieve(ctx, assume)
	}
	if err != nil {
		code := CodeAssumeRole
		if s3put.Describe(err).Status == http.StatusForbidden {
			code = CodeExternalIDRejected
		}
		return creds, v.fail(step, code, err)
	}
	step.As = sessionARN(r)
	step.ok("session until " + creds.Expires.UTC().Format(time.RFC3339))
	if owner := strings.Split(r.arn, ":")[4]; r.externalID == "" && v.account != "" && v.account != owner {
		v.warn("role %s is in another account than the caller and demands no external id: anybody who can make this service use the ARN can have it write there", r.arn)
	}
	return creds, nil
}

func (v *validation) putObject(ctx context.Context, creds aws.Credentials) *ValidationError {
	step := v.begin(StepPutObject, "s3://"+v.report.Bucket+"/"+v.report.Key)
	err := v.put(ctx, creds)
	if v.waitForChange(ctx, err) {
		err = v.put(ctx, creds)
	}
	if err != nil {
		return v.fail(step, putCode(err), err)
	}
	step.ok("")
	return nil
}

// putCode is the row of what S3 answered.
func putCode(err error) ValidationCode {
	if s3put.Describe(err).Status == http.StatusForbidden {
		return CodePutObjectDenied
	}
	return CodePutObject
}

// put makes the attempts that an upload would make without a backoff.
func (v *validation) put(ctx context.Context, creds aws.Credentials) error {
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	tried := map[s3put.Class]bool{}
	for {
		body := "This object shows that s3sink may write here. It can be deleted.\n"
		err := v.sink.guard.call(awsCode, func() error {
			_, err := v.sink.client.PutAs(ctx, creds, s3put.Request{
				Bucket: v.report.Bucket, Key: v.report.Key, Replace: true,
				Body: strings.NewReader(body), Size: int64(len(body)), CRC32: crc32.ChecksumIEEE([]byte(body)),
				ContentType: "text/plain; charset=utf-8",
				SHA256:      func() ([sha256.Size]byte, error) { return sha256.Sum256([]byte(body)), nil },
			})
			return err
		})
		if err == nil {
			return nil
		}
		class := s3put.Describe(err).Class
		if class != s3put.Skew && class != s3put.Elsewhere || tried[class] {
			return err
		}
		if class == s3put.Skew {
			v.warn("the clock of this host is more than 15 minutes off")
		}
		tried[class] = true
	}
}

// waitForChange reports whether what was refused is worth another try, after a
// while: once a validation, if it may be that a change of IAM is not known
// everywhere yet.
func (v *validation) waitForChange(ctx context.Context, err error) bool {
	if err == nil || v.waited {
		return false
	}
	if e := s3put.Describe(err); e.Status != http.StatusForbidden || e.Code != "AccessDenied" {
		return false
	}
	v.waited = true
	select {
	case <-time.After(propagation):
	case <-ctx.Done():
		return false
	}
	v.warn("refused at first (%s), and tried again after %v: changes of IAM take some seconds to be known everywhere",
		answer(s3put.Describe(err)), propagation)
	return true
}

func retrieve(ctx context.Context, p aws.CredentialsProvider) (aws.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, stsTimeout)
	defer cancel()
	return p.Retrieve(ctx)
}

// sessionARN is who the role's session is in logs.
func sessionARN(r role) string {
	parts := strings.Split(r.arn, ":")
	name := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	return fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", parts[1], parts[4], name, r.session)
}

// refusesCaller reports whether an answer to GetCallerIdentity is about the
// caller: its keys, its account or this host's clock. The call needs no permission,
// so AWS's 403 is always about that. Another STS may not have the call.
func (env awsEnvironment) refusesCaller(e *s3put.Error) bool {
	switch e.Code {
	case "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException",
		"InvalidAccessKeyId", "IncompleteSignature", "UnrecognizedClientException", "InvalidToken", "InvalidTokenId",
		"RequestTimeTooSkewed", "RequestExpired", "NotSignedUp", "AccountProblem":
		return e.Named
	}
	return e.Named && e.Status == http.StatusForbidden && env.stsEndpoint == "" && ambientSTSEndpoint(env.config) == ""
}

var errNotRequired = errors.New("the role was assumed without the external id")

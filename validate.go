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

// Validate checks that the sink can write. It requests fresh credentials the way
// uploads do, then puts dummy-object.txt into the folder of the key format, with
// the headers of uploads. The only permission needed is s3:PutObject. Validate
// does not delete the object; a later Validate replaces it.
//
// It returns nil, or a [*ValidationError] with the message that Segment's
// destination documents for the case. [Sink.ValidateReport] also reports the
// steps.
//
// Validate is meant for setup. It can be called at any time, also while events
// are tracked. ctx cancels it at every step. Each STS call times out after 10
// seconds, and the upload after 30. On success, parked uploads are retried at
// once. [Sink.Close] cancels Validate, which then returns [ErrClosed].
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

// ValidateReport is [Sink.Validate] with a report of each step. The error is
// [ErrClosed] or nil; a failed validation is in the Err field of the report.
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
		s.client.Renew() // cached credentials may predate the fix
		s.uploader.Unpark()
	case errors.Is(context.Cause(ctx), ErrClosed):
		return nil, ErrClosed
	case ctx.Err() != nil && failed.Status == 0:
		failed.Hint = fmt.Sprintf("The context of Validate ended before there was an answer (%v). %s", context.Cause(ctx), failed.Hint)
	}
	v.report.Err = failed
	return v.report, nil
}

// validations tracks the running validations. Close cancels them before it
// releases the credentials and connections that they use.
type validations struct {
	mu    sync.Mutex
	ended bool
	ends  map[*context.CancelCauseFunc]struct{}
	wg    sync.WaitGroup
}

// begin returns a context for one validation, and a function to call after it.
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

// end cancels all validations and waits for them. No validation can begin after
// end.
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

// dummyKey returns a key in the folder of real keys, so that the same policy
// covers both. With key formats whose readers might take the object for data, the
// key is in the subfolder _s3sink: Hive, Spark, Trino and Athena ignore names that
// begin with _.
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

	// propagation is the wait before a refused request is retried once: an IAM
	// change takes some seconds to propagate.
	propagation = 5 * time.Second
)

// validation is one call of Validate or ValidateReport.
type validation struct {
	sink    *Sink
	report  *ValidationReport
	waited  bool   // for an IAM change to propagate
	caller  string // ARN of the identity that assumes the role, if known
	account string // of the caller
}

func (v *validation) run(ctx context.Context) *ValidationError {
	region, err := v.region(ctx)
	if err != nil {
		return err
	}
	env := v.sink.env(region)
	env.refreshed = func(CredentialRefresh) {} // not a renewal: no hook is called
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

// credentials returns fresh credentials for the upload.
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

// base checks the identity that assumes the role. It assumes intermediate roles.
// Having keys does not prove that they are valid, so it calls GetCallerIdentity,
// which needs no permission.
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
	default: // other STS servers lack the call; the next step tests the keys
		step.ok("access key " + creds.AccessKeyID + ", whose is not known")
	}
	return nil
}

// withoutID checks that the role cannot be assumed without the external id.
// Otherwise any party that learns the ARN could have events written to the bucket.
// If STS does return a session, it is not used.
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

// putCode returns the code for an error of S3.
func putCode(err error) ValidationCode {
	if s3put.Describe(err).Status == http.StatusForbidden {
		return CodePutObjectDenied
	}
	return CodePutObject
}

// put makes the attempts that an upload makes without a backoff.
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

// waitForChange reports whether a refused request should be retried, after
// waiting for propagation. It does so once per validation, and only for
// AccessDenied, which may mean that an IAM change has not propagated yet.
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

// sessionARN returns the ARN under which logs show the role's session.
func sessionARN(r role) string {
	parts := strings.Split(r.arn, ":")
	name := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	return fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/%s", parts[1], parts[4], name, r.session)
}

// refusesCaller reports whether an answer to GetCallerIdentity rejects the
// caller: its keys, its account or this host's clock. The call needs no
// permission, so a 403 from AWS always does. Another STS may not have the call.
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

package s3sink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink/internal/s3put"
)

const (
	// stsTimeout bounds one refresh, which outlives the request that wanted it.
	stsTimeout = 10 * time.Second

	// refreshEarly is how long before its end a session is renewed, so that
	// none ends in the middle of an upload.
	refreshEarly = 5 * time.Minute

	// refreshJitter spreads the renewals of a fleet that started together.
	refreshJitter = 30 * time.Second

	// refreshAgain is how long the old session serves before STS is asked
	// again, when a refresh failed.
	refreshAgain = 30 * time.Second

	// clockTolerance is how far a clock may be off before it is corrected.
	clockTolerance = time.Minute
)

// session gives the sessions of one role, one after another. The SDK's
// CredentialsCache would do, but that a request waits for each refresh: while
// STS is down every one of them would be late, although the session is good.
type session struct {
	role      string
	assume    aws.CredentialsProvider // one call of STS
	base      aws.CredentialsProvider // as whom
	refreshed func(CredentialRefresh)

	ctx    context.Context // of refreshes; ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	creds     aws.Credentials // none if it has no keys
	refreshAt time.Time
	running   *refresh // or nil
}

// refresh is one call of STS, for which several requests may wait.
type refresh struct {
	done chan struct{}
	err  error // set when done is closed
	late bool  // the session that it gets was dropped meanwhile
}

func newSession(role string, assume, base aws.CredentialsProvider, refreshed func(CredentialRefresh)) *session {
	ctx, cancel := context.WithCancel(context.Background())
	return &session{role: role, assume: assume, base: base, refreshed: refreshed, ctx: ctx, cancel: cancel}
}

// Retrieve implements [aws.CredentialsProvider]. It waits for STS only while
// there is no session that is good.
func (s *session) Retrieve(ctx context.Context) (aws.Credentials, error) {
	for {
		creds, running := s.current()
		if creds.HasKeys() {
			return creds, nil
		}
		select {
		case <-running.done:
			if running.err != nil {
				return aws.Credentials{}, running.err
			}
		case <-ctx.Done():
			return aws.Credentials{}, context.Cause(ctx)
		}
	}
}

// current returns the session, or none, and the refresh that runs. It starts
// one when it is due.
func (s *session) current() (aws.Credentials, *refresh) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !now.Before(s.creds.Expires) {
		s.creds = aws.Credentials{}
	}
	if s.running == nil && (!s.creds.HasKeys() || !now.Before(s.refreshAt)) {
		s.running = &refresh{done: make(chan struct{})}
		s.wg.Go(s.refresh)
	}
	return s.creds, s.running
}

// Invalidate drops the session, and one that is being made: STS says for the
// next hop that it has ended, or it shall be made anew.
func (s *session) Invalidate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creds = aws.Credentials{}
	if s.running != nil {
		s.running.late = true
	}
}

// InvalidateKey drops the session of that access key, if it is still in use: an
// answer may be about the one before.
func (s *session) InvalidateKey(accessKeyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.creds.AccessKeyID == accessKeyID {
		s.creds = aws.Credentials{}
	}
}

// Close ends refreshes and waits for them. Nobody may ask for the session any
// more.
func (s *session) Close() {
	s.cancel()
	s.wg.Wait()
	closeProvider(s.base)
}

// closeProvider ends what the sink has made. Providers of others are theirs.
func closeProvider(p aws.CredentialsProvider) {
	if s, ok := p.(*session); ok {
		s.Close()
	}
}

func (s *session) refresh() {
	began := time.Now()
	creds, err := s.ask()

	s.mu.Lock()
	if s.running.late {
		s.running.late = false
		s.mu.Unlock()
		s.refresh()
		return
	}
	now := time.Now()
	if err == nil {
		s.creds = creds
		early := min(refreshEarly+rand.N(refreshJitter), creds.Expires.Sub(now)/2)
		s.refreshAt = creds.Expires.Add(-early)
	} else {
		s.refreshAt = now.Add(refreshAgain)
	}
	serves := s.creds.Expires
	running := s.running
	running.err = err
	s.running = nil
	s.mu.Unlock()

	if s.ctx.Err() == nil { // else Close has cut it off
		s.refreshed(CredentialRefresh{Role: s.role, Expires: serves, Duration: now.Sub(began), Err: err})
	}
	close(running.done)
}

// ask calls STS, and once more if the session that it asks as has ended.
func (s *session) ask() (aws.Credentials, error) {
	ctx, cancel := context.WithTimeout(s.ctx, stsTimeout)
	defer cancel()
	creds, err := s.assume.Retrieve(ctx)
	if base, ok := s.base.(interface{ Invalidate() }); ok && s3put.HasEnded(err) {
		base.Invalidate()
		creds, err = s.assume.Retrieve(ctx)
	}
	switch {
	case err != nil && refusesPolicy(s3put.Describe(err).Code):
		return aws.Credentials{}, fmt.Errorf("assume %s: STS does not take the session policy; use WithoutSessionPolicy: %w", s.role, err)
	case err != nil:
		return aws.Credentials{}, fmt.Errorf("assume %s: %w", s.role, err)
	case !creds.HasKeys():
		return aws.Credentials{}, fmt.Errorf("assume %s: the answer holds no credentials; is it STS that answers?", s.role)
	case !time.Now().Before(creds.Expires):
		// Taken as it is, STS would be asked again for every object.
		return aws.Credentials{}, fmt.Errorf("assume %s: the session of the answer has ended already", s.role)
	}
	return creds, nil
}

// refusesPolicy reports whether an error's code is about the session policy: it
// can be too large, and STSs that are not AWS's know less than IAM does.
// InvalidParameterValue is MinIO's, for the condition kms:ViaService.
func refusesPolicy(code string) bool {
	switch code {
	case "PackedPolicyTooLarge", "PackedPolicyTooLargeException",
		"MalformedPolicyDocument", "MalformedPolicyDocumentException", "InvalidParameterValue":
		return true
	}
	return false
}

// localClock is an STS client whose sessions end by the clock of this host,
// which may be hours off: the SDK corrects only how requests are signed.
type localClock struct{ *sts.Client }

func (c localClock) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, opts ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	began := time.Now()
	out, err := c.Client.AssumeRole(ctx, in, opts...)
	if err != nil || out.Credentials == nil {
		return out, err
	}
	if out.Credentials.Expiration == nil { // STS always names it; others may not
		out.Credentials.Expiration = aws.Time(began.Add(time.Duration(*in.DurationSeconds) * time.Second))
	}
	skew, known := awsmiddleware.GetAttemptSkew(out.ResultMetadata)
	if known && skew.Abs() > clockTolerance {
		out.Credentials.Expiration = aws.Time(out.Credentials.Expiration.Add(-skew))
	}
	return out, nil
}

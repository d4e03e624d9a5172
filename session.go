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
	// stsTimeout bounds one refresh, which continues after the request that
	// started it.
	stsTimeout = 10 * time.Second

	// refreshEarly is how long before its end a session is renewed, so that no
	// session ends during an upload.
	refreshEarly = 5 * time.Minute

	// refreshJitter spreads the renewals of services that started together.
	refreshJitter = 30 * time.Second

	// refreshRetry is how long the old session serves before STS is asked
	// again, when a refresh failed.
	refreshRetry = 30 * time.Second

	// clockTolerance is the clock error above which expiry times are corrected.
	clockTolerance = time.Minute
)

// session provides the sessions of one role. It replaces the SDK's
// CredentialsCache, in which requests wait for each refresh: while STS is down,
// every upload would be delayed although the current session is still valid.
type session struct {
	role      string
	assume    aws.CredentialsProvider // calls STS once
	base      aws.CredentialsProvider // the identity that assumes the role
	refreshed func(CredentialRefresh)

	ctx    context.Context // of refreshes; ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	creds     aws.Credentials // without keys: no session
	refreshAt time.Time
	running   *refresh // or nil
}

// refresh is one call of STS. Several requests may wait for it.
type refresh struct {
	done        chan struct{}
	err         error // set when done is closed
	invalidated bool  // the session that this refresh gets must be discarded
}

func newSession(role string, assume, base aws.CredentialsProvider, refreshed func(CredentialRefresh)) *session {
	ctx, cancel := context.WithCancel(context.Background())
	return &session{role: role, assume: assume, base: base, refreshed: refreshed, ctx: ctx, cancel: cancel}
}

// Retrieve implements [aws.CredentialsProvider]. It waits for STS only if there is
// no valid session.
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

// current returns the session, if there is a valid one, and the running refresh,
// if any. It starts a refresh when one is due.
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

// Invalidate discards the session, and the session that a running refresh gets. It
// is called when STS says, in answer to the next role of a chain, that the session
// has ended, and when the session policy has changed.
func (s *session) Invalidate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creds = aws.Credentials{}
	if s.running != nil {
		s.running.invalidated = true
	}
}

// InvalidateKey discards the session if it has that access key. An answer of S3
// can be about a previous session.
func (s *session) InvalidateKey(accessKeyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.creds.AccessKeyID == accessKeyID {
		s.creds = aws.Credentials{}
	}
}

// Close ends refreshes and waits for them. Retrieve must not be called afterwards.
func (s *session) Close() {
	s.cancel()
	s.wg.Wait()
	closeProvider(s.base)
}

// closeProvider closes the sessions that the sink has made. The application owns
// other providers.
func closeProvider(p aws.CredentialsProvider) {
	if s, ok := p.(*session); ok {
		s.Close()
	}
}

func (s *session) refresh() {
	began := time.Now()
	creds, err := s.assumeRole()

	s.mu.Lock()
	if s.running.invalidated {
		s.running.invalidated = false
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
		s.refreshAt = now.Add(refreshRetry)
	}
	serves := s.creds.Expires
	running := s.running
	running.err = err
	s.running = nil
	s.mu.Unlock()

	if s.ctx.Err() == nil { // otherwise Close has cancelled the refresh
		s.refreshed(CredentialRefresh{Role: s.role, Expires: serves, Duration: now.Sub(began), Err: err})
	}
	close(running.done)
}

// ask calls STS, and once more if the session that it asks as has ended.
func (s *session) assumeRole() (aws.Credentials, error) {
	ctx, cancel := context.WithTimeout(s.ctx, stsTimeout)
	defer cancel()
	creds, err := s.assume.Retrieve(ctx)
	if base, ok := s.base.(interface{ Invalidate() }); ok && s3put.HasEnded(err) {
		base.Invalidate()
		creds, err = s.assume.Retrieve(ctx)
	}
	switch {
	case err != nil && refusesPolicy(s3put.Describe(err).Code):
		return aws.Credentials{}, fmt.Errorf("assume %s: STS refuses the session policy; use WithoutSessionPolicy: %w", s.role, err)
	case err != nil:
		return aws.Credentials{}, fmt.Errorf("assume %s: %w", s.role, err)
	case !creds.HasKeys():
		return aws.Credentials{}, fmt.Errorf("assume %s: the answer holds no credentials; check that the endpoint is STS", s.role)
	case !time.Now().Before(creds.Expires):
		// An expired session would cause a call of STS for every object.
		return aws.Credentials{}, fmt.Errorf("assume %s: the session in the answer of STS has already expired", s.role)
	}
	return creds, nil
}

// refusesPolicy reports whether an error code refuses the session policy. The
// policy can be too large, and other implementations of STS know fewer conditions
// than IAM: MinIO answers InvalidParameterValue to kms:ViaService.
func refusesPolicy(code string) bool {
	switch code {
	case "PackedPolicyTooLarge", "PackedPolicyTooLargeException",
		"MalformedPolicyDocument", "MalformedPolicyDocumentException", "InvalidParameterValue":
		return true
	}
	return false
}

// localClock is an STS client that converts the end of sessions to the clock of
// this host, which may be wrong by hours. The SDK corrects only the time in
// signatures.
type localClock struct{ *sts.Client }

func (c localClock) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, opts ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	began := time.Now()
	out, err := c.Client.AssumeRole(ctx, in, opts...)
	if err != nil || out.Credentials == nil {
		return out, err
	}
	if out.Credentials.Expiration == nil { // AWS always sets it; other implementations may not
		out.Credentials.Expiration = aws.Time(began.Add(time.Duration(*in.DurationSeconds) * time.Second))
	}
	skew, known := awsmiddleware.GetAttemptSkew(out.ResultMetadata)
	if known && skew.Abs() > clockTolerance {
		out.Credentials.Expiration = aws.Time(out.Credentials.Expiration.Add(-skew))
	}
	return out, nil
}

package s3sink_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// count returns the number of requests of an operation that the server
// received.
func count(server *s3sinktest.Server, operation string) (n int) {
	for _, r := range server.Requests() {
		if r.Operation == operation {
			n++
		}
	}
	return n
}

// twoHops adds a second role to the chain: the configured role becomes an
// intermediate role, and assumes the role that writes.
func twoHops(server *s3sinktest.Server, cfg *s3sink.Config) {
	const last = "arn:aws:iam::999999999999:role/Customer"
	server.AddRole(s3sinktest.Role{ARN: last, TrustedPrincipals: []string{s3sinktest.RoleARN}, ExternalID: "customer-7"})
	cfg.Credentials = s3sink.AssumeRole(last, "customer-7", s3sink.Via(cfg.Credentials))
}

// assumed returns the times at which each role was assumed.
func assumed(server *s3sinktest.Server) map[string][]time.Time {
	times := map[string][]time.Time{}
	for _, r := range server.Requests() {
		if arn := r.Form.Get("RoleArn"); arn != "" && r.Status == http.StatusOK {
			times[arn] = append(times[arn], r.Time)
		}
	}
	return times
}

// uploadFor uploads an object at each interval for the duration d, in virtual
// time.
func uploadFor(t *testing.T, sink *s3sink.Sink, d, every time.Duration) {
	t.Helper()
	for began := time.Now(); time.Since(began) < d; time.Sleep(every) {
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
	}
}

// Given a chain of roles with sessions of an hour, then the session of each
// role is used for all uploads and renewed before it ends.
func TestSession_CachedAndRenewedEarly(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		twoHops(server, &cfg)
		sink := open(t, cfg)
		uploadFor(t, sink, 5*time.Hour, time.Minute)
		mustClose(t, sink)
		hops := assumed(server)
		if len(hops) != 2 {
			t.Errorf("%d roles were assumed, want 2", len(hops))
		}
		for role, times := range hops {
			if len(times) < 5 || len(times) > 7 {
				t.Errorf("%s: %d calls of AssumeRole in 5 hours, want 5 to 7", role, len(times))
			}
			for i, at := range times[1:] {
				if lasted := at.Sub(times[i]); lasted < 54*time.Minute || lasted > 56*time.Minute {
					t.Errorf("%s: a session was renewed after %v, want 5 minutes early", role, lasted)
				}
			}
		}
		if st := sink.Stats(); st.Attempts != 300 || st.Objects != 300 {
			t.Errorf("%d attempts for %d objects: some session had ended", st.Attempts, st.Objects)
		}
	})
}

// Given STS that is down for the last 10 minutes of each session, then the
// session of each role is used until it ends.
func TestSession_UsedWhileSTSIsDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		twoHops(server, &cfg)
		var refused atomic.Int64
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 503, Code: "ServiceUnavailable", Match: func(*http.Request) bool {
			for _, times := range assumed(server) {
				age := time.Since(times[len(times)-1])
				if age > 50*time.Minute && age < time.Hour {
					refused.Add(1)
					return true
				}
			}
			return false
		}})
		sink := open(t, cfg)
		uploadFor(t, sink, 5*time.Hour, 15*time.Second)
		mustClose(t, sink)
		if st := sink.Stats(); st.Attempts != st.Objects {
			t.Errorf("%d attempts for %d objects: some failed although the session was good", st.Attempts, st.Objects)
		}
		if n := refused.Load(); n < 5*10 || n > 5*2*60 {
			t.Errorf("STS was asked %d times while it was down", n)
		}
		for role, times := range assumed(server) {
			if len(times) < 5 || len(times) > 6 {
				t.Errorf("%s: %d sessions in 5 hours, want 5 or 6", role, len(times))
			}
		}
	})
}

// Given a session that has expired, or that S3 no longer accepts, when STS is
// down, then the session signs no request.
func TestSession_ExpiredIsNotUsed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		flush := func(within time.Duration) error {
			mustTrack(t, sink, struct{}{})
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			return sink.Flush(ctx)
		}
		if err := flush(time.Minute); err != nil {
			t.Fatal(err)
		}
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 503, Code: "ServiceUnavailable"})
		time.Sleep(59 * time.Minute)
		if err := flush(50 * time.Second); err != nil { // the sink first tries to renew the session
			t.Errorf("with a minute left: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := flush(10 * time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with an ended session: %v", err)
		}
		if err := sink.Err(); !s3sink.Retryable(err) {
			t.Errorf("an outage of STS parked uploads: %v", err)
		}
		server.ClearFaults()
		if err := flush(time.Minute); err != nil {
			t.Error(err)
		}

		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 400, Code: "ExpiredToken", Times: 1})
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 503, Code: "ServiceUnavailable", Times: 20})
		if err := flush(10 * time.Minute); err != nil {
			t.Errorf("after S3 refused the session: %v", err)
		}
		if err := sink.Err(); err != nil {
			t.Errorf("a session that ended early parked uploads: %v", err)
		}
		for _, r := range server.Requests() {
			if r.Operation == "PutObject" && r.Status != 200 && r.Code != "ExpiredToken" || r.Code == "InvalidAccessKeyId" {
				t.Errorf("a PUT was answered %d %s", r.Status, r.Code)
			}
		}
		expired := 0
		for _, r := range server.Requests() {
			if r.Code == "ExpiredToken" {
				expired++
			}
		}
		if expired != 1 {
			t.Errorf("%d PUTs with a session that had ended, want the one that was scripted", expired)
		}
		mustClose(t, sink)
	})
}

// Given a valid session, when STS is slow or fails, then no upload waits for
// the renewal, and the log reports the failure.
func TestSession_RenewedInBackground(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		var log strings.Builder
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		var told []s3sink.CredentialRefresh
		cfg.Hooks.CredentialRefresh = func(r s3sink.CredentialRefresh) { told = append(told, r) }
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
		ends := time.Now().Add(time.Hour)
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Stall: true})
		time.Sleep(56 * time.Minute)
		for range 12 { // every 15 s for 3 minutes
			began := time.Now()
			mustTrack(t, sink, struct{}{})
			mustFlush(t, sink)
			if waited := time.Since(began); waited != 0 {
				t.Errorf("an upload waited %v for STS", waited)
			}
			time.Sleep(15 * time.Second)
		}
		server.ClearFaults()
		time.Sleep(30 * time.Second)
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
		time.Sleep(time.Second)
		mustClose(t, sink)

		failed := 0
		for _, r := range told {
			if r.Role != s3sinktest.RoleARN {
				t.Errorf("told of role %q", r.Role)
			}
			if r.Err != nil {
				failed++
				if r.Expires.Sub(ends).Abs() > time.Second || r.Duration != 10*time.Second {
					t.Errorf("a renewal failed after %v, the session ends at %v, want %v", r.Duration, r.Expires, ends)
				}
			}
		}
		// The first renewal begins at once and times out after 10 s; then one
		// begins every 30 s.
		if failed < 4 || failed > 5 || len(told) != failed+2 {
			t.Errorf("told of %d renewals of which %d failed", len(told), failed)
		}
		if n := strings.Count(log.String(), "STS did not renew the session"); n != failed {
			t.Errorf("%d warnings, want %d:\n%s", n, failed, &log)
		}
	})
}

// Given a chain of roles, when STS says that the session of the intermediate
// role has expired, then that session is renewed and the upload succeeds.
func TestChainOfRoles_ExpiredIntermediateRole(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		twoHops(server, &cfg)
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Code: "ExpiredTokenException", Times: 1,
			Match: func(r *http.Request) bool { return strings.Contains(r.Header.Get("Authorization"), "Credential=ASIA") }})
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		mustClose(t, sink)
		if st := sink.Stats(); st.Attempts != 1 {
			t.Errorf("%d attempts, want 1", st.Attempts)
		}
		hops := assumed(server)
		if n := len(hops[s3sinktest.RoleARN]); n != 2 {
			t.Errorf("the first hop was assumed %d times, want 2", n)
		}
	})
}

// Given an STS that does not answer, then Close does not wait for it.
func TestClose_STSHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Stall: true})
		time.Sleep(56 * time.Minute)
		mustTrack(t, sink, struct{}{})
		began := time.Now()
		mustClose(t, sink)
		if waited := time.Since(began); waited != 0 {
			t.Errorf("Close took %v", waited)
		}
	})
}

// Given an STS that does not answer, then a refresh ends after its timeout and
// is retried.
func TestSession_STSHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Stall: true, Times: 1})
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		began := time.Now()
		mustFlush(t, sink)
		if waited := time.Since(began); waited > 15*time.Second {
			t.Errorf("delivered after %v", waited)
		}
		mustClose(t, sink)
	})
}

// Given a chain of roles, then each role is assumed with the session of the
// previous one.
func TestChainOfRoles(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	const middle, last = "arn:aws:iam::123456789012:role/path/Middle", "arn:aws:iam::999999999999:role/Customer"
	server.AddRole(s3sinktest.Role{ARN: middle, TrustedPrincipals: []string{s3sinktest.RoleARN}})
	server.AddRole(s3sinktest.Role{ARN: last, TrustedPrincipals: []string{middle}, ExternalID: "customer-7"})
	cfg.Credentials = s3sink.AssumeRole(last, "customer-7", s3sink.WithSessionName("orders"),
		s3sink.Via(s3sink.AssumeRole(middle, "", s3sink.Via(cfg.Credentials))))
	sink := open(t, cfg)
	mustTrack(t, sink, struct{}{})
	mustClose(t, sink)
	requests := server.Requests()
	if got := requests[len(requests)-1].Principal; !strings.Contains(got, "assumed-role/Customer/orders") || count(server, "AssumeRole") != 3 {
		t.Errorf("put by %s after %d calls of AssumeRole", got, count(server, "AssumeRole"))
	}
}

func TestRefusedRoleParks(t *testing.T) {
	t.Parallel()
	for name, credentials := range map[string]func(base s3sink.Credentials) s3sink.Credentials{
		"wrong external id": func(base s3sink.Credentials) s3sink.Credentials {
			return s3sink.AssumeRole(s3sinktest.RoleARN, "wrong", s3sink.Via(base))
		},
		"no such role": func(base s3sink.Credentials) s3sink.Credentials {
			return s3sink.AssumeRole("arn:aws:iam::123456789012:role/Nobody", "id", s3sink.Via(base))
		},
		"wrong secret": func(s3sink.Credentials) s3sink.Credentials {
			return s3sink.AccessKeys("AKIABASE", "wrong", "")
		},
		"none": func(s3sink.Credentials) s3sink.Credentials { return s3sink.Ambient() },
	} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/base", AccessKeyID: "AKIABASE", SecretAccessKey: "base"})
			cfg.Credentials = credentials(s3sink.AccessKeys("AKIABASE", "base", ""))
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := sink.Flush(ctx)
			var refused *s3sink.UploadError
			if name == "none" {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", name, err)
				}
			} else if !errors.As(err, &refused) || refused.Status != 403 {
				t.Errorf("%s: %v, want a refusal with status 403", name, err)
			}
			if n := len(server.Requests()); n > 10 {
				t.Errorf("%s: %d requests in a minute", name, n)
			}
			sink.Close(ctx)
		})
	}
}

func TestProvider(t *testing.T) {
	t.Parallel()
	server, cfg := s3sinktest.New(t)
	server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/own", AccessKeyID: "AKIAOWN", SecretAccessKey: "own"})
	calls := 0
	cfg.Credentials = s3sink.Provider(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		calls++
		return aws.Credentials{AccessKeyID: "AKIAOWN", SecretAccessKey: "own"}, nil
	}))
	sink := open(t, cfg)
	for range 3 {
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
	}
	mustClose(t, sink)
	if calls != 1 {
		t.Errorf("the provider was asked %d times", calls)
	}
}

// Given RudderStack's variables, then ambient credentials have RudderStack's
// precedence. The test sets the environment, so it is not parallel.
func TestAmbient(t *testing.T) {
	const (
		aws, copyUser = "arn:aws:iam::123456789012:user/aws", "arn:aws:iam::123456789012:user/copy"
		id, key       = "RUDDER_AWS_S3_COPY_USER_ACCESS_KEY_ID", "RUDDER_AWS_S3_COPY_USER_ACCESS_KEY"
	)
	env := map[string]string{"AWS_ACCESS_KEY_ID": "AKIAAWS", "AWS_SECRET_ACCESS_KEY": "aws", id: "AKIACOPY", key: "copy"}
	for name, tt := range map[string]struct {
		unset      []string
		role       bool
		authorized string // credentials of the first request
	}{
		"the SDK's alone":          {[]string{id, key}, false, aws},
		"RudderStack's alone":      {[]string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, false, copyUser},
		"both":                     {nil, false, copyUser},
		"half of RudderStack's":    {[]string{key}, false, aws},
		"the other half":           {[]string{id}, false, aws},
		"both, to assume the role": {nil, true, aws},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range env {
				if slices.Contains(tt.unset, variable) {
					value = ""
				}
				t.Setenv(variable, value)
			}
			server, cfg := s3sinktest.New(t)
			server.AddUser(s3sinktest.User{ARN: aws, AccessKeyID: "AKIAAWS", SecretAccessKey: "aws"})
			server.AddUser(s3sinktest.User{ARN: copyUser, AccessKeyID: "AKIACOPY", SecretAccessKey: "copy"})
			server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{aws}})
			cfg.AWS, cfg.Credentials = nil, nil
			if tt.role {
				cfg.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, "")
			}
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
			if got := server.Requests()[0].Principal; got != tt.authorized {
				t.Errorf("authorized as %q, want %q", got, tt.authorized)
			}
		})
	}
}

package s3sink_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go/middleware"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// saboteur is application code that fails while on is set.
type saboteur struct {
	on     atomic.Bool
	goexit bool
}

func (s *saboteur) act() {
	switch {
	case !s.on.Load():
	case s.goexit:
		runtime.Goexit()
	default:
		panic("user bug")
	}
}

// provider returns a credentials provider that fails like the saboteur.
func (s *saboteur) provider(p aws.CredentialsProvider) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		s.act()
		return p.Retrieve(ctx)
	})
}

// saboteurs lists the application code that a sink calls on its own goroutines
// while it uploads an object.
var saboteurs = map[string]func(*saboteur, *s3sinktest.Server, *s3sink.Config){
	"Provider": func(s *saboteur, server *s3sinktest.Server, cfg *s3sink.Config) {
		cfg.Credentials = s3sink.Provider(s.provider(userOf(server)))
	},
	"Provider below a role": func(s *saboteur, server *s3sinktest.Server, cfg *s3sink.Config) {
		cfg.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, s3sinktest.ExternalID, s3sink.Via(s3sink.Provider(s.provider(userOf(server)))))
		server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: s3sinktest.ExternalID})
	},
	"Credentials of Config.AWS": func(s *saboteur, server *s3sinktest.Server, cfg *s3sink.Config) {
		cfg.Credentials, cfg.AWS = nil, &aws.Config{Credentials: s.provider(userOf(server))}
	},
	"middleware of Config.AWS": func(s *saboteur, _ *s3sinktest.Server, cfg *s3sink.Config) {
		cfg.AWS = &aws.Config{APIOptions: []func(*middleware.Stack) error{func(*middleware.Stack) error { s.act(); return nil }}}
	},
	"HTTPClient, S3": func(s *saboteur, _ *s3sinktest.Server, cfg *s3sink.Config) {
		cfg.HTTPClient.Transport = sabotaged{s, cfg.HTTPClient.Transport, http.MethodPut}
	},
	"HTTPClient, STS": func(s *saboteur, _ *s3sinktest.Server, cfg *s3sink.Config) {
		cfg.HTTPClient.Transport = sabotaged{s, cfg.HTTPClient.Transport, http.MethodPost}
	},
	"HTTPClient, region": func(s *saboteur, _ *s3sinktest.Server, cfg *s3sink.Config) {
		cfg.Region, cfg.Endpoint = "", ""
		cfg.HTTPClient.Transport = sabotaged{s, toStore{cfg.HTTPClient.Transport}, http.MethodHead}
	},
}

// userOf returns the credentials of a user that may write.
func userOf(server *s3sinktest.Server) aws.CredentialsProvider {
	server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::111122223333:user/app", AccessKeyID: "AKIAAPP", SecretAccessKey: "secret"})
	return credentials.NewStaticCredentialsProvider("AKIAAPP", "secret", "")
}

// sabotaged is a transport that fails like the saboteur for requests of one
// method.
type sabotaged struct {
	*saboteur
	next   http.RoundTripper
	method string
}

func (s sabotaged) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == s.method {
		s.act()
	}
	return s.next.RoundTrip(r)
}

// toStore sends requests for AWS host names to the server of the test.
type toStore struct{ next http.RoundTripper }

func (s toStore) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme = "http"
	return s.next.RoundTrip(r)
}

// Given code of the application that panics or ends its goroutine while an
// object is uploaded, then the process continues, uploads are parked with an
// error that says so, the log has the stack, and Validate returns the error.
// When that code works again, everything is delivered with all upload slots.
func TestForeignCode_Panics(t *testing.T) {
	t.Parallel()
	for name, sabotage := range saboteurs {
		for _, goexit := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", Goexit"}[goexit], func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
					bug := &saboteur{goexit: goexit}
					bug.on.Store(true)
					sabotage(bug, server, &cfg)
					log := new(records)
					cfg.Logger, cfg.MaxObjectEvents = slog.New(log), 1
					sink := open(t, cfg)
					const events = 3 * s3sink.DefaultUploadConcurrency
					for range events {
						mustTrack(t, sink, struct{}{})
					}
					text := map[bool]string{false: "panicked: user bug", true: "called runtime.Goexit"}[goexit]
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					err := sink.Flush(ctx)
					var refused *s3sink.UploadError
					if !errors.As(err, &refused) || !strings.Contains(refused.Error(), text) || s3sink.Retryable(refused) {
						t.Errorf("Flush: %v, want a parked UploadError that says %q", err, text)
					}
					stacks := log.find("code outside the sink panicked")
					if len(stacks) == 0 {
						t.Fatal("no stack in the log")
					}
					if n := len(stacks); n > 4*s3sink.DefaultUploadConcurrency {
						t.Errorf("%d stacks in the log within a minute", n)
					}
					stacks[0].Attrs(func(a slog.Attr) bool {
						if a.Key == "stack" && !strings.Contains(a.Value.String(), "saboteur).act") {
							t.Errorf("stack %s", a.Value)
						}
						return true
					})
					var invalid *s3sink.ValidationError
					if err := sink.Validate(t.Context()); !errors.As(err, &invalid) || !strings.Contains(invalid.Err.Error(), text) || !strings.Contains(invalid.Hint, "log") {
						t.Errorf("Validate: %v, want a ValidationError that wraps %q", err, text)
					}
					bug.on.Store(false)
					time.Sleep(s3sink.DefaultRetryParked + time.Minute)
					if st := sink.Stats(); st.Delivered != events || sink.Err() != nil {
						t.Errorf("an interval after the end of the trouble: %d of %d events delivered, Err %v", st.Delivered, events, sink.Err())
					}
					mustClose(t, sink)
				})
			})
		}
	}
}

// Given a provider that panics during a renewal, then the session is used until
// it ends, and nothing is parked before.
func TestForeignCode_PanicsInRefresh(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		bug := new(saboteur)
		cfg.HTTPClient.Transport = sabotaged{bug, cfg.HTTPClient.Transport, http.MethodPost}
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
		bug.on.Store(true)
		time.Sleep(58 * time.Minute)
		mustTrack(t, sink, struct{}{})
		mustFlush(t, sink)
		time.Sleep(3 * time.Minute) // the session has ended
		mustTrack(t, sink, struct{}{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := sink.Flush(ctx); err == nil || !strings.Contains(err.Error(), "user bug") {
			t.Errorf("%v, want the panic of the refresh", err)
		}
		bug.on.Store(false)
		mustClose(t, sink)
	})
}

// brokenHandler is a slog.Handler that fails.
type brokenHandler struct {
	*saboteur
	enabled bool // Enabled also fails
}

func (h brokenHandler) Enabled(context.Context, slog.Level) bool {
	if h.enabled {
		h.act()
	}
	return true
}
func (h brokenHandler) Handle(context.Context, slog.Record) error { h.act(); return nil }
func (h brokenHandler) WithAttrs([]slog.Attr) slog.Handler        { return h }
func (h brokenHandler) WithGroup(string) slog.Handler             { return h }

// Given a Logger that panics or ends its goroutine at each record, when uploads
// are parked and hooks panic, then the process continues and everything is
// delivered in the end.
func TestForeignCode_LoggerPanics(t *testing.T) {
	t.Parallel()
	for _, enabled := range []bool{false, true} {
		for _, goexit := range []bool{false, true} {
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				bug := &saboteur{goexit: goexit}
				bug.on.Store(true)
				cfg.Logger = slog.New(brokenHandler{bug, enabled})
				cfg.Hooks.Attempt = func(s3sink.Attempt) { bug.act() }
				cfg.SpoolDir = t.TempDir() + "/spool"
				server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 503, Times: 10})
				server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied", Times: 3})
				sink := open(t, cfg)
				mustTrack(t, sink, struct{}{})
				time.Sleep(2 * time.Hour)
				mustClose(t, sink)
				if n := len(lines(t, server, s3sinktest.Bucket)); n != 1 {
					t.Errorf("%d events, want 1", n)
				}
			})
		}
	}
}

package s3sink_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// careless is an event whose own code panics with the Config that it holds.
type careless struct{ cfg s3sink.Config }

func (c careless) MarshalJSON() ([]byte, error) {
	panic(fmt.Sprintf("%v %+v %#v", c.cfg, c.cfg, &c.cfg))
}

// Given any failure of a sink, then neither the secret key nor a session token
// is in errors, hooks, the log or panics of the application's code.
func TestSecrets_NotInMessages(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	for _, o := range outcomes {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			var mu sync.Mutex
			var said strings.Builder
			say := func(v any) {
				mu.Lock()
				defer mu.Unlock()
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
					fmt.Fprintf(&said, verb+"\n", v)
				}
				slog.New(slog.NewJSONHandler(&said, nil)).Info("x", "v", v)
				slog.New(slog.NewTextHandler(&said, nil)).Info("x", "v", v)
				text, _ := json.Marshal(v)
				said.Write(text)
			}
			server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/base", AccessKeyID: "AKIABASE", SecretAccessKey: canary})
			base := s3sink.AccessKeys("AKIABASE", canary, "")
			cfg.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, s3sinktest.ExternalID, s3sink.Via(base))
			server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: s3sinktest.ExternalID})
			var log strings.Builder
			cfg.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			cfg.Hooks = s3sink.Hooks{
				Sealed:   func(s s3sink.Sealed) { panic(fmt.Sprintf("%+v %#v", cfg, cfg)) },
				Attempt:  func(a s3sink.Attempt) { say(a); say(a.Err) },
				Parked:   func(p s3sink.Parked) { say(p) },
				Uploaded: func(u s3sink.Uploaded) { say(u) },
			}
			sink := open(t, cfg)
			say(sink.Track(careless{cfg}))
			o.fault.Operation = "PutObject"
			server.Inject(o.fault)
			server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Times: 1, Status: 403, Code: "AccessDenied", Message: "no"})
			mustTrack(t, sink, struct{}{})
			time.Sleep(7 * time.Minute)
			say(sink.Err())
			server.ClearFaults()
			mustClose(t, sink)

			all := said.String() + log.String()
			secrets := []string{canary}
			for _, r := range server.Requests() {
				if token := r.Header.Get("X-Amz-Security-Token"); token != "" {
					secrets = append(secrets, token, fmt.Sprintf("%q", token))
				}
				if _, signature, ok := strings.Cut(r.Header.Get("Authorization"), "Signature="); ok {
					secrets = append(secrets, signature)
				}
			}
			if len(secrets) < 4 {
				t.Fatal("no session was used")
			}
			for _, secret := range secrets {
				if strings.Contains(all, secret) || strings.Contains(all, fmt.Sprintf("%x", secret)) {
					t.Fatalf("%s: %.20s… is told", o.answer, secret)
				}
			}
			if !strings.Contains(log.String(), `"code":"a hook"`) {
				t.Error("the hook did not panic")
			}
		})
	}
}

// Given values of the package, then fmt prints no secret of them.
func TestSecrets_NotPrinted(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	static := credentials.NewStaticCredentialsProvider("AKIA", canary, canary)
	server, cfg := s3sinktest.New(t)
	for name, c := range map[string]s3sink.Credentials{
		"keys":          s3sink.AccessKeys("AKIA", canary, canary),
		"provider":      s3sink.Provider(static),
		"role":          s3sink.AssumeRole(s3sinktest.RoleARN, "id", s3sink.Via(s3sink.Provider(static))),
		"role of a key": s3sink.AssumeRole(s3sinktest.RoleARN, "id", s3sink.Via(s3sink.AccessKeys("AKIA", canary, canary))),
	} {
		cfg.Credentials = c
		sink := open(t, cfg)
		src, err := sink.Source("other")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []any{c, cfg, &cfg, sink, src} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
				if text := fmt.Sprintf(verb, v); strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
					t.Errorf("%s: %s of a %T shows the secret", name, verb, v)
				}
			}
		}
	}
	server.Close()
}

// The files of the spool contain events, and no credentials.
func TestSecrets_NotInSpool(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/base", AccessKeyID: "AKIABASE", SecretAccessKey: canary})
		server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: canary})
		cfg.Credentials = s3sink.AssumeRole(s3sinktest.RoleARN, canary, s3sink.Via(s3sink.AccessKeys("AKIABASE", canary, "")))
		cfg.SpoolDir, cfg.Durability = t.TempDir()+"/spool", s3sink.SyncEach
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied"})
		sink := open(t, cfg)
		if err := sink.TrackLine([]byte(`{"event":"in the spool"}`)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sink.Close(ctx); err == nil {
			t.Fatal("nothing is left in the spool")
		}
		var all strings.Builder
		files, err := filepath.Glob(cfg.SpoolDir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(file)
			all.Write(text)
		}
		if !strings.Contains(all.String(), "in the spool") {
			t.Error("the event is not in the files: this test cannot fail")
		}
		for _, secret := range []string{canary, "AKIABASE", "ASIA"} {
			if strings.Contains(all.String(), secret) {
				t.Errorf("%s is in the spool's files", secret)
			}
		}
	})
}

package s3sink_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given any answer of STS without a session, then nothing is signed, STS gets
// few requests, and the sink continues when STS works again. Uploads are parked
// if, and only if, an operator must act.
func TestSTS_AnswersWithoutSession(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault  s3sinktest.Fault
		parked bool
	}{
		"down":                          {says(503, "ServiceUnavailable"), false},
		"failing":                       {says(500, "InternalFailure"), false},
		"throttled":                     {says(400, "Throttling"), false},
		"hangs":                         {s3sinktest.Fault{Stall: true}, false},
		"cuts connections":              {s3sinktest.Fault{LoseResponse: true}, false},
		"behind a broken proxy":         {sends(502, page), false},
		"200 with a page":               {sends(200, page), false},
		"200 with nothing":              {sends(200, ""), false},
		"200 with half an answer":       {sends(200, "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA"), false},
		"200 for a session of the past": {sends(200, "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>1999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"), false},
		"200 without keys":              {sends(200, "<AssumeRoleResponse><AssumeRoleResult><Credentials></Credentials></AssumeRoleResult></AssumeRoleResponse>"), false},
		"200 without a session":         {sends(200, "<AssumeRoleResponse><AssumeRoleResult></AssumeRoleResult></AssumeRoleResponse>"), false},
		"role is gone":                  {says(403, "AccessDenied"), true},
		"keys are gone":                 {says(403, "InvalidClientTokenId"), true},
		"refusing proxy":                {sends(403, page), true},
		"policy too long":               {says(400, "PackedPolicyTooLarge"), true},
		"session too long":              {says(400, "ValidationError"), true},
		"region is off":                 {says(403, "RegionDisabledException"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				tt.fault.Operation = "AssumeRole"
				server.Inject(tt.fault)
				cfg.MaxObjectEvents = 1
				sink := open(t, cfg)
				for range 20 {
					mustTrack(t, sink, struct{}{})
				}
				time.Sleep(62 * time.Minute) // between two probes
				if n := count(server, "PutObject"); n != 0 {
					t.Errorf("%d PUTs without a session", n)
				}
				if n := count(server, "AssumeRole"); n < 10 || n > 500 { // 120 attempts with three calls each
					t.Errorf("%d calls of STS in an hour", n)
				}
				if err := sink.Err(); err == nil || s3sink.Retryable(err) == tt.parked {
					t.Errorf("Err is %v, parked %t", err, tt.parked)
				} else if tt.parked && !strings.Contains(err.Error(), s3sinktest.RoleARN) {
					t.Errorf("%v: does not name the role", err)
				}
				server.ClearFaults()
				time.Sleep(s3sink.DefaultRetryParked)
				if st := sink.Stats(); st.Delivered != 20 || sink.Err() != nil {
					t.Errorf("STS is well again, but: %+v, %v", st, sink.Err())
				}
				mustClose(t, sink)
				if n := len(lines(t, server, s3sinktest.Bucket)); n != 20 {
					t.Errorf("%d events are stored, want 20", n)
				}
			})
		})
	}
}

// Given a role that is deleted, then its last session is used until it ends.
// Then uploads are parked until the role exists again.
func TestSTS_RoleIsDeleted(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		sink := open(t, cfg)
		uploadFor(t, sink, 10*time.Minute, time.Minute)
		server.Inject(s3sinktest.Fault{Operation: "AssumeRole", Status: 403, Code: "AccessDenied"})
		uploadFor(t, sink, 48*time.Minute, time.Minute)
		if err := sink.Err(); err != nil {
			t.Errorf("parked although the session is good: %v", err)
		}
		time.Sleep(10 * time.Minute)
		mustTrack(t, sink, struct{}{})
		time.Sleep(7 * time.Minute) // closed by age
		var refused *s3sink.UploadError
		if err := sink.Err(); !errors.As(err, &refused) || refused.Status != 403 || !strings.Contains(err.Error(), s3sinktest.RoleARN) {
			t.Errorf("Err is %v, want that the role was refused", err)
		}
		server.ClearFaults()
		time.Sleep(s3sink.DefaultRetryParked)
		if st := sink.Stats(); st.Pending != 0 || sink.Err() != nil {
			t.Errorf("the role is there again: %+v, %v", st, sink.Err())
		}
		mustClose(t, sink)
	})
}

// Given a session that ends during fifty uploads, then it costs one new session
// and one retry of each upload.
func TestSTS_SessionEndsDuringUploads(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		const uploads = 50
		ended := new(endedSession)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 400, Code: "ExpiredToken", Delay: time.Second, Match: ended.signed})
		cfg.UploadConcurrency = uploads
		cfg.MaxObjectEvents = 1
		cfg.Hooks.Parked = func(p s3sink.Parked) { t.Errorf("parked: %v", p.Err) }
		cfg.Hooks.Uploaded = func(u s3sink.Uploaded) {
			if u.Attempts != 2 {
				t.Errorf("%d attempts for %s, want 2", u.Attempts, u.Object.Key)
			}
		}
		sink := open(t, cfg)
		for i := range uploads {
			mustTrack(t, sink, map[string]int{"n": i})
		}
		began := time.Now()
		mustFlush(t, sink)
		if waited := time.Since(began); waited > 2*time.Second {
			t.Errorf("waited %v, want no backoff", waited)
		}
		mustClose(t, sink)
		if n := count(server, "AssumeRole"); n != 2 {
			t.Errorf("%d sessions, want 2", n)
		}
		if n := len(lines(t, server, s3sinktest.Bucket)); n != uploads || server.StoredPuts() != uploads {
			t.Errorf("%d lines in %d stored PUTs, want %d", n, server.StoredPuts(), uploads)
		}
	})
}

// endedSession is the first session that a request is signed with.
type endedSession struct {
	mu  sync.Mutex
	key string
}

func (e *endedSession) signed(r *http.Request) bool {
	key := signer(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.key == "" {
		e.key = key
	}
	return key == e.key
}

// signer returns the id of the access key that r is signed with.
func signer(r *http.Request) string {
	_, key, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ = strings.Cut(key, "/")
	return key
}

package s3sink_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given two sinks in one process, also with one HTTP client, when one of them
// fails in any way, then the other one accepts, stores and drops events as
// before.
func TestSinks_Independent(t *testing.T) {
	t.Parallel()
	const bucket, role = "other", "arn:aws:iam::999999999999:role/Other"
	toBucket := func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/"+bucket+"/") }
	ofRole := func(r *http.Request) bool {
		form, err := io.ReadAll(r.Body)
		return err == nil && strings.Contains(string(form), "Other")
	}
	for name, fault := range map[string]s3sinktest.Fault{
		"refused":        {Operation: "PutObject", Match: toBucket, Status: 403, Code: "AccessDenied"},
		"down":           {Operation: "PutObject", Match: toBucket, Status: 503, Code: "SlowDown"},
		"hangs":          {Operation: "PutObject", Match: toBucket, Stall: true},
		"STS hangs":      {Operation: "AssumeRole", Match: ofRole, Stall: true},
		"STS is down":    {Operation: "AssumeRole", Match: ofRole, Status: 500, Code: "InternalFailure"},
		"role is denied": {Operation: "AssumeRole", Match: ofRole, Status: 403, Code: "AccessDenied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				server.CreateBucket(bucket, s3sinktest.Region)
				server.AddRole(s3sinktest.Role{ARN: role, TrustedPrincipals: []string{"*"}, Actions: []string{"s3:PutObject"}})
				server.Inject(fault)
				sick := cfg
				sick.Bucket, sick.MaxMemory, sick.MaxEventBytes = bucket, 1<<20, 64<<10
				sick.Credentials = s3sink.AssumeRole(role, "", s3sink.Via(baseOf(server)))
				other, well := open(t, sick), open(t, cfg)

				full := 0
				for i := range uint64(3600) {
					if err := other.TrackLine(noise(i, 1000)); errors.Is(err, s3sink.ErrBufferFull) {
						full++
					} else if err != nil {
						t.Fatal(err)
					}
					mustTrack(t, well, struct{}{})
					if i%60 == 59 {
						began := time.Now()
						mustFlush(t, well)
						if waited := time.Since(began); waited != 0 {
							t.Fatalf("Flush waited %v", waited)
						}
					}
					time.Sleep(time.Second)
				}
				if st := other.Stats(); full == 0 || st.Delivered > 0 {
					t.Errorf("the other sink: %d refused, %+v; want it full", full, st)
				}
				st := well.Stats()
				if st.Attempts != 60 || st.MemoryPeak > 8<<10 || well.Err() != nil {
					t.Errorf("%+v, Err %v; want one attempt for each object in no more than 8 KiB", st, well.Err())
				}
				mustClose(t, well)
				if n := len(lines(t, server, s3sinktest.Bucket)); n != 3600 {
					t.Errorf("%d events are stored, want 3600", n)
				}
			})
		})
	}
}

// baseOf returns the access keys of a user of server.
func baseOf(server *s3sinktest.Server) s3sink.Credentials {
	server.AddUser(s3sinktest.User{ARN: "arn:aws:iam::123456789012:user/base", AccessKeyID: "AKIABASE", SecretAccessKey: "base"})
	return s3sink.AccessKeys("AKIABASE", "base", "")
}

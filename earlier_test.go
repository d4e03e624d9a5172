package s3sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

// leave runs f on a sink whose uploads S3 refuses, and returns the keys of its
// sealed objects. The spool stays as after a crash, with open segments too: cfg
// gets a copy of the directory.
func leave(t *testing.T, server *s3sinktest.Server, cfg *s3sink.Config, f func(*s3sink.Sink)) []string {
	t.Helper()
	server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403})
	defer server.ClearFaults()
	dir := t.TempDir()
	cfg.SpoolDir = filepath.Join(dir, "spool")
	early := *cfg
	var mu sync.Mutex
	var keys []string
	early.Hooks.Sealed = func(s s3sink.Sealed) {
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, s.Object.Key)
	}
	sink := open(t, early)
	f(sink)
	time.Sleep(10 * time.Second) // several commits
	crashed := filepath.Join(dir, "crashed")
	if err := errors.Join(os.CopyFS(crashed, os.DirFS(cfg.SpoolDir)), os.Chmod(crashed, 0o700)); err != nil {
		t.Fatal(err)
	}
	cfg.SpoolDir = crashed
	mu.Lock()
	sealed := slices.Clone(keys) // Close seals the rest
	mu.Unlock()
	giveUp(t, sink)
	synctest.Wait() // the server may still have attempts that were cut off
	return sealed
}

// giveUp closes a sink whose objects cannot be delivered.
func giveUp(t *testing.T, sink *s3sink.Sink) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sink.Close(ctx); err == nil {
		t.Error("delivered")
	}
}

// seal seals the open objects with a Flush that ends before delivery.
func seal(t *testing.T, sink *s3sink.Sink) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := sink.Flush(ctx); err == nil {
		t.Error("delivered without S3")
	}
}

// resources returns the resources of the last session policy, without the ARN
// of the bucket.
func resources(t *testing.T, server *s3sinktest.Server) (all []string) {
	t.Helper()
	policies := sessionPolicies(server)
	last := policies[len(policies)-1]
	if len(last) > 2048 {
		t.Errorf("a session policy of %d characters", len(last))
	}
	var p policy.Document
	if err := json.Unmarshal([]byte(last), &p); err != nil {
		t.Fatalf("session policy %q: %v", last, err)
	}
	for _, r := range p.Statement[0].Resource {
		all = append(all, strings.TrimPrefix(r, "arn:aws:s3:::"+s3sinktest.Bucket+"/"))
	}
	return all
}

// stored counts the lines below a folder.
func stored(t *testing.T, server *s3sinktest.Server, folder string) (n int) {
	t.Helper()
	for _, o := range server.Objects(s3sinktest.Bucket) {
		if strings.HasPrefix(o.Key, folder) {
			n += len(unpack(t, o).lines)
		}
	}
	return n
}

// Given a spool of another KeyFormat, then its objects keep their keys,
// sessions may write to the folders of both formats and nowhere else, and new
// events get new keys.
func TestKeyFormat_ChangedWithSpool(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prefix   string
		old, new s3sink.KeyFormat
		want     []string
		sealed   int // sealed segments, in addition to an open one
	}{
		"Segment to Hive":         {"", s3sink.SegmentKeys, s3sink.HiveKeys, []string{"events/*", "segment-logs/*"}, 3},
		"not sealed":              {"", s3sink.SegmentKeys, s3sink.HiveKeys, []string{"events/*", "segment-logs/*"}, 0},
		"Hive to RudderStack":     {"a/b", s3sink.HiveKeys, s3sink.RudderStackKeys, []string{"a/b/events/*", "a/b/rudder-logs/*"}, 3},
		"no folder of the source": {"", "logs/{received_day:YYYY}/{source}-{uuid}.gz", s3sink.SegmentKeys, []string{"logs/2000/*", "segment-logs/*"}, 3},
		"the source's folder":     {"test-source", "{source}/{uuid}.gz", s3sink.SegmentKeys, []string{"test-source/*"}, 3},
		"no folder":               {"test-source", "{source}-{uuid}.gz", s3sink.SegmentKeys, []string{"test-source/*"}, 3},
		"the same folder":         {"", s3sink.RudderStackKeys, s3sink.RudderStackListedKeys, []string{"rudder-logs/*"}, 3},
		"a folder above":          {"", s3sink.SegmentKeys, "segment-logs/v2/{uuid}.gz", []string{"segment-logs/*"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				cfg.Prefix, cfg.KeyFormat, cfg.MaxObjectAge = tt.prefix, tt.old, time.Hour
				random := rand.New(rand.NewPCG(1, 2))
				n := 0
				track := func(sink *s3sink.Sink) {
					for range 40 { // several blocks
						text := make([]byte, 20_000)
						for i := range text {
							text[i] = byte('a' + random.IntN(26))
						}
						mustTrack(t, sink, map[string]any{"n": n, "text": string(text)})
						n++
					}
				}
				keys := leave(t, server, &cfg, func(sink *s3sink.Sink) {
					for range tt.sealed {
						track(sink)
						seal(t, sink)
					}
					track(sink)
				})
				if len(keys) != tt.sealed {
					t.Fatalf("sealed %q, want %d", keys, tt.sealed)
				}
				requests := len(server.Requests())

				cfg.KeyFormat = tt.new
				sink := open(t, cfg)
				mustTrack(t, sink, map[string]int{"n": n})
				mustClose(t, sink)
				if st := sink.Stats(); st.Recovered != int64(n) || st.Delivered != int64(n)+1 {
					t.Errorf("%+v", st)
				}
				if got := resources(t, server); !slices.Equal(got, tt.want) {
					t.Errorf("sessions may write to %q, want %q", got, tt.want)
				}
				last := server.Requests()[requests:]
				if i := slices.IndexFunc(last, func(r s3sinktest.Request) bool { return r.Status >= 400 }); i >= 0 {
					t.Errorf("refused: status %d %s of %s", last[i].Status, last[i].Code, last[i].Key)
				}
				for _, key := range keys {
					if _, ok := server.Object(s3sinktest.Bucket, key); !ok {
						t.Errorf("%s was sealed, and is not there", key)
					}
				}
				if got := len(server.Objects(s3sinktest.Bucket)); got != tt.sealed+2 {
					t.Errorf("%d objects, want %d of before, one that was open, and one new", got, tt.sealed)
				}
			})
		})
	}
}

// Given keys in more folders than fit into a session policy, then the policy
// allows parent folders instead, but nothing above the prefix.
func TestKeyFormat_ManyFoldersInSpool(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prefix string
		old    s3sink.KeyFormat
		want   []string
	}{
		"below months": {"", "logs/{received_day:YYYY/MM/DD}/{uuid}.gz", []string{
			"logs/2000/01/*", "logs/2000/02/*", "logs/2000/03/*", "logs/2000/04/*", "segment-logs/*"}},
		"below the prefix": {"team", "{received_day:YYYY-MM-DD}/{uuid}.gz", []string{"team/*"}},
	} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			const days = 100
			cfg.Prefix, cfg.KeyFormat = tt.prefix, tt.old
			start, day := time.Now(), 0
			cfg.ReceivedAt = func(any) time.Time { return start.AddDate(0, 0, day) }
			leave(t, server, &cfg, func(sink *s3sink.Sink) {
				for day = range days {
					mustTrack(t, sink, struct{}{})
					seal(t, sink)
				}
			})
			cfg.KeyFormat = ""
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
			if st := sink.Stats(); st.Recovered != days || st.Delivered != days+1 {
				t.Errorf("%s: %+v", name, st)
			}
			if got := resources(t, server); !slices.Equal(got, tt.want) {
				t.Errorf("%s: sessions may write to %q, want %q", name, got, tt.want)
			}
		})
	}
}

// mayWrite is the kit's role when it may put objects into folders alone.
func mayWrite(folders ...string) s3sinktest.Role {
	var arns []string
	for _, f := range folders {
		arns = append(arns, fmt.Sprintf(`"arn:aws:s3:::%s/%s*"`, s3sinktest.Bucket, f))
	}
	return s3sinktest.Role{
		ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}, ExternalID: s3sinktest.ExternalID,
		Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":[` + strings.Join(arns, ",") + `]}]}`,
	}
}

// Given a role that may write to the new folder only, then objects of the old
// folder are parked with an error that names the missing permission, and new
// events are delivered. When the role may write to both, all objects are
// delivered.
func TestKeyFormat_RoleDeniesOldFolder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		const left = 30 // many more than UploadConcurrency
		leave(t, server, &cfg, func(sink *s3sink.Sink) {
			for range left {
				mustTrack(t, sink, struct{}{})
				seal(t, sink)
			}
		})
		server.AddRole(mayWrite("events/"))
		before := len(server.Requests())
		cfg.KeyFormat, cfg.MaxObjectAge = s3sink.HiveKeys, time.Second
		sink := open(t, cfg)
		const tracked = 20
		for n := range tracked {
			mustTrack(t, sink, struct{}{})
			time.Sleep(3 * time.Second)
			if got := stored(t, server, "events/"); got != n+1 {
				t.Fatalf("%d new events in S3 after %v, want %d", got, 3*time.Second, n+1)
			}
		}
		refused := 0
		for _, r := range server.Requests()[before:] {
			if r.Status == http.StatusForbidden {
				refused++
			}
		}
		if refused == 0 || refused >= 2*s3sink.DefaultUploadConcurrency {
			t.Errorf("%d objects were sent to be refused, want a few", refused)
		}

		err := sink.Err()
		var ue *s3sink.UploadError
		if !errors.As(err, &ue) || ue.Status != http.StatusForbidden || !strings.HasPrefix(ue.Key, "segment-logs/") || s3sink.Retryable(err) {
			t.Errorf("Err: %v", err)
		}
		const want = `the object is of an earlier KeyFormat: until it is delivered, whoever writes needs ` +
			`{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::s3sinktest/segment-logs/*"]} too`
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Err: %v\nwant in it: %s", err, want)
		}

		server.AddRole(mayWrite("events/", "segment-logs/"))
		time.Sleep(s3sink.DefaultRetryParked + time.Second)
		if got := stored(t, server, "segment-logs/"); got != left {
			t.Errorf("%d of %d old events in S3 when the role may write them", got, left)
		}
		if err := sink.Err(); err != nil {
			t.Errorf("Err: %v", err)
		}
		mustClose(t, sink)
		if entries, err := os.ReadDir(cfg.SpoolDir); err != nil || len(entries) != 1 {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	})
}

// Given a refusal that has nothing to do with the old folder, then the error
// does not mention the KeyFormat.
func TestKeyFormat_UnrelatedRefusal(t *testing.T) {
	t.Parallel()
	for name, mend := range map[string]func(*s3sinktest.Server){
		"the role may not be assumed": func(server *s3sinktest.Server) {
			server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, ExternalID: s3sinktest.ExternalID})
		},
		"the bucket's key": func(server *s3sinktest.Server) {
			server.AddKMSKey(s3sinktest.KMSKey{ARN: kmsKey})
			server.ConfigureBucket(s3sinktest.Bucket, s3sinktest.BucketSettings{Encryption: "aws:kms", KMSKeyID: kmsKey})
		},
		"the bucket is gone": func(server *s3sinktest.Server) {
			server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 404, Code: "NoSuchBucket"})
		},
	} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			leave(t, server, &cfg, func(sink *s3sink.Sink) {
				mustTrack(t, sink, struct{}{})
				seal(t, sink)
			})
			mend(server)
			cfg.KeyFormat = s3sink.HiveKeys
			sink := open(t, cfg)
			time.Sleep(time.Second)
			var ue *s3sink.UploadError
			if err := sink.Err(); !errors.As(err, &ue) || strings.Contains(err.Error(), "KeyFormat") {
				t.Errorf("%s: %v", name, err)
			}
			giveUp(t, sink)
		})
	}
}

package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// service starts a sink with a spool in a directory.
func service(t *testing.T, dir string) (*s3sinktest.Server, *s3sink.Sink, s3sink.Config) {
	t.Helper()
	server, cfg := s3sinktest.New(t, s3sinktest.InMemory())
	cfg.SpoolDir, cfg.Durability = dir, s3sink.SyncEach
	sink, err := start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server, sink, cfg
}

func answer(sink *s3sink.Sink, method, path, body string) int {
	w := httptest.NewRecorder()
	handler(sink).ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code
}

// Given a pod that is stopped, then its events are in S3, or in the spool for
// the next pod if S3 is down, and it ends without an error.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "spool")
		server, sink, _ := service(t, dir)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
		for body, want := range map[string]int{`{"event":"Signed Up"}`: 200, `no event`: 400, strings.Repeat(" ", maxBody+1): 400} {
			if got := answer(sink, "POST", "/events", body); got != want {
				t.Errorf("an event of %d bytes: %d, want %d", len(body), got, want)
			}
		}
		begin := time.Now()
		if err := shutdown(new(http.Server), sink); err != nil {
			t.Errorf("S3 is down: %v, want nil", err)
		}
		if took := time.Since(begin); took > requestTimeout+closeTimeout {
			t.Errorf("it took %v", took)
		}
		if got := answer(sink, "POST", "/events", `{"event":"Late"}`); got != http.StatusServiceUnavailable {
			t.Errorf("an event after that: %d, want 503", got)
		}

		server, sink, cfg := service(t, dir)
		if err := shutdown(new(http.Server), sink); err != nil {
			t.Errorf("S3 is well: %v", err)
		}
		if all := server.Objects(s3sinktest.Bucket); len(all) != 1 || all[0].Metadata["s3sink-events"] != "1" {
			t.Errorf("%d objects, want one with the event; Config %+v", len(all), cfg)
		}
	})
}

// Given a bucket that refuses uploads, then no probe fails: a restart would not
// help, and no other pod is better.
func TestProbes_BucketRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, sink, _ := service(t, filepath.Join(t.TempDir(), "spool"))
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 403, Code: "AccessDenied"})
		answer(sink, "POST", "/events", `{"event":"Signed Up"}`)
		time.Sleep(10 * time.Minute)
		if sink.Err() == nil {
			t.Error("Err is nil, but the bucket refuses uploads")
		}
		for _, path := range []string{"/live", "/ready"} {
			if got := answer(sink, "GET", path, ""); got != http.StatusOK {
				t.Errorf("%s: %d, want 200", path, got)
			}
		}
		shutdown(new(http.Server), sink)
	})
}

// Given a disk that fails, then the pod is not ready, and alive.
func TestProbes_DiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "spool")
		_, sink, _ := service(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		answer(sink, "POST", "/events", `{"event":"Signed Up"}`)
		for path, want := range map[string]int{"/live": http.StatusOK, "/ready": http.StatusServiceUnavailable} {
			if got := answer(sink, "GET", path, ""); got != want {
				t.Errorf("%s: %d, want %d (Err: %v)", path, got, want, sink.Err())
			}
		}
		shutdown(new(http.Server), sink)
	})
}

const page = "../../docs/kubernetes.md"

// blocks returns the code blocks of the page that are in a language.
func blocks(t *testing.T, language string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(text), "```") {
		if body, ok := strings.CutPrefix(part, language+"\n"); ok && i%2 == 1 {
			all = append(all, body)
		}
	}
	return all
}

// Given the Go code blocks of the page, then main.go contains each of them.
func TestPage_Go(t *testing.T) {
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	code := blocks(t, "go")
	if len(code) == 0 {
		t.Errorf("%s has no Go", page)
	}
	for _, block := range code {
		if !bytes.Contains(program, []byte(block)) {
			t.Errorf("main.go lacks the code block\n%s", block)
		}
	}
}

// The fields of Kubernetes objects that the page uses. The decoder refuses
// other fields, so it finds misspelt ones.
type (
	object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
		Spec       workload
	}
	metadata struct {
		Name   string
		Labels map[string]string
	}
	workload struct {
		Replicas    int
		ServiceName string `yaml:"serviceName"`
		Selector    struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Strategy             struct{ Type string }
		Template             template
		VolumeClaimTemplates []claim `yaml:"volumeClaimTemplates"`
	}
	template struct {
		Metadata metadata
		Spec     pod
	}
	claim struct {
		Metadata metadata
		Spec     struct {
			AccessModes []string `yaml:"accessModes"`
			Resources   struct{ Requests struct{ Storage quantity } }
		}
	}
	pod struct {
		ServiceAccountName            string `yaml:"serviceAccountName"`
		TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
		SecurityContext               struct {
			RunAsNonRoot        bool   `yaml:"runAsNonRoot"`
			RunAsUser           int    `yaml:"runAsUser"`
			FSGroup             int    `yaml:"fsGroup"`
			FSGroupChangePolicy string `yaml:"fsGroupChangePolicy"`
		} `yaml:"securityContext"`
		Containers []container
		Volumes    []volume
	}
	container struct {
		Name, Image string
		Ports       []struct {
			ContainerPort int `yaml:"containerPort"`
		}
		Env             []struct{ Name, Value string }
		SecurityContext struct {
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		} `yaml:"securityContext"`
		Lifecycle struct {
			PreStop struct {
				Sleep struct{ Seconds int }
			} `yaml:"preStop"`
		}
		ReadinessProbe probe `yaml:"readinessProbe"`
		LivenessProbe  probe `yaml:"livenessProbe"`
		StartupProbe   probe `yaml:"startupProbe"`
		VolumeMounts   []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet struct {
			Path string
			Port int
		} `yaml:"httpGet"`
		PeriodSeconds    int `yaml:"periodSeconds"`
		FailureThreshold int `yaml:"failureThreshold"`
	}
	volume struct {
		Name     string
		EmptyDir *struct {
			SizeLimit quantity `yaml:"sizeLimit"`
		} `yaml:"emptyDir"`
	}
	quantity string
)

// bytes returns a quantity in Gi.
func (q quantity) bytes(t *testing.T) int64 {
	t.Helper()
	var n int64
	digits, ok := strings.CutSuffix(string(q), "Gi")
	if err := yaml.Unmarshal([]byte(digits), &n); !ok || err != nil {
		t.Errorf("%q is not a number of Gi", q)
	}
	return n << 30
}

// env returns a variable of the only container.
func (p pod) env(name string) string {
	for _, e := range p.Containers[0].Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// manifests decodes the YAML of the page.
func manifests(t *testing.T) map[string]object {
	t.Helper()
	all := map[string]object{}
	for _, block := range blocks(t, "yaml") {
		decoder := yaml.NewDecoder(strings.NewReader(block))
		decoder.KnownFields(true)
		for {
			var o object
			err := decoder.Decode(&o)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in\n%s", err, block)
			}
			all[o.Kind] = o
		}
	}
	return all
}

// Given the manifests of the page, then they are consistent with each other and
// with this program.
func TestPage_Manifests(t *testing.T) {
	all := manifests(t)
	if _, ok := all["StatefulSet"]; !ok || len(all) != 2 {
		t.Fatalf("the page has %d manifests, want a StatefulSet and a Deployment", len(all))
	}
	for kind, o := range all {
		t.Run(kind, func(t *testing.T) {
			p := o.Spec.Template.Spec
			if o.APIVersion != "apps/v1" || o.Spec.Selector.MatchLabels["app"] != o.Spec.Template.Metadata.Labels["app"] || len(p.Containers) != 1 {
				t.Fatalf("%+v", o)
			}
			c := p.Containers[0]
			preStop := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
			if grace := time.Duration(p.TerminationGracePeriodSeconds) * time.Second; preStop == 0 || preStop+requestTimeout+closeTimeout >= grace {
				t.Errorf("preStop %v, requests %v and Close %v take the whole grace period of %v", preStop, requestTimeout, closeTimeout, grace)
			}
			if s := p.SecurityContext; !s.RunAsNonRoot || s.RunAsUser == 0 || s.FSGroup == 0 || s.FSGroupChangePolicy != "OnRootMismatch" || !c.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%+v", s)
			}
			if c.LivenessProbe.HTTPGet.Path != "/live" || c.ReadinessProbe.HTTPGet.Path != "/ready" || c.StartupProbe.HTTPGet.Path != "/live" {
				t.Errorf("the probes are %+v, %+v and %+v", c.LivenessProbe, c.ReadinessProbe, c.StartupProbe)
			}
			if started := time.Duration(c.StartupProbe.PeriodSeconds*c.StartupProbe.FailureThreshold) * time.Second; started <= startTimeout {
				t.Errorf("the startup probe gives up after %v, start after %v", started, startTimeout)
			}
			cfg, err := config(p.env)
			if err != nil || cfg.Bucket == "" || cfg.SourceID == "" {
				t.Errorf("config: %v, %+v", err, cfg)
			}
			room, ok := volumes(t, o)[mounted(t, c, cfg.SpoolDir)]
			if !ok || cfg.MaxSpoolBytes > room*9/10 {
				t.Errorf("MaxSpoolBytes is %d of a volume of %d bytes, want at most nine tenths", cfg.MaxSpoolBytes, room)
			}
		})
	}
	if modes := all["StatefulSet"].Spec.VolumeClaimTemplates[0].Spec.AccessModes; !slices.Equal(modes, []string{"ReadWriteOncePod"}) {
		t.Errorf("the access modes are %q", modes)
	}
}

// mounted returns the volume that a path lies in.
func mounted(t *testing.T, c container, path string) string {
	t.Helper()
	for _, m := range c.VolumeMounts {
		if strings.HasPrefix(path+"/", m.MountPath+"/") {
			return m.Name
		}
	}
	t.Errorf("no volume is mounted at %q", path)
	return ""
}

// volumes returns the volumes of the pods, and their sizes.
func volumes(t *testing.T, o object) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for _, v := range o.Spec.Template.Spec.Volumes {
		all[v.Name] = v.EmptyDir.SizeLimit.bytes(t)
	}
	for _, c := range o.Spec.VolumeClaimTemplates {
		all[c.Metadata.Name] = c.Spec.Resources.Requests.Storage.bytes(t)
	}
	return all
}

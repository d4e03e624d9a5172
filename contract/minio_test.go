package contract

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
)

// minioKey looks like the id of a KMS key; MinIO takes any name.
const minioKey = "6d1f2a3e-0c4b-4a5d-8e9f-1a2b3c4d5e6f"

// minioServer is a running MinIO.
type minioServer struct {
	url                             string
	client                          *http.Client
	owner, writer, caller, stranger keys

	admin func([]minioUser) error // adds users, or changes their policies
}

// minioUser is an element of what servers/minio reads.
type minioUser struct {
	ID, Secret string
	Policy     any `json:",omitempty"` // nil: may do nothing
}

var minioServers = map[string]func() (*minioServer, error){
	"http":  sync.OnceValues(func() (*minioServer, error) { return startMinIO("http") }),
	"https": sync.OnceValues(func() (*minioServer, error) { return startMinIO("https") }),
}

func startMinIO(scheme string) (*minioServer, error) {
	path, err := buildMinIO()
	if err != nil {
		return nil, err
	}
	id, err := newIdentity()
	if err != nil {
		return nil, err
	}
	return thrice(func() (*minioServer, error) {
		dir, err := tempDir()
		if err != nil {
			return nil, err
		}
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		m := &minioServer{
			url:      scheme + "://" + address,
			client:   newClient(id),
			owner:    keys{id: "AKIAOWNER00000000000", secret: rand.Text()},
			writer:   keys{id: "AKIAWRITER0000000000", secret: rand.Text()},
			caller:   keys{id: "AKIACALLER0000000000", secret: rand.Text()},
			stranger: keys{id: "AKIASTRANGER00000000", secret: rand.Text()},
		}
		kms := make([]byte, 32)
		rand.Read(kms) // never fails
		env := append(minioEnvironment(),
			"HOME="+dir,
			"MINIO_ROOT_USER="+m.owner.id,
			"MINIO_ROOT_PASSWORD="+m.owner.secret,
			"MINIO_SITE_REGION="+region,
			"MINIO_KMS_SECRET_KEY="+minioKey+":"+base64.StdEncoding.EncodeToString(kms),
			"MINIO_BROWSER=off",
			"MINIO_UPDATE=off", // asks nobody for a newer version
		)
		certs := filepath.Join(dir, "certs") // empty: http
		if scheme == "https" {
			certs = filepath.Dir(id.cert)
		}
		p, err := start("MinIO", path, env, "server", "--address", address, "--certs-dir", certs, filepath.Join(dir, "data"))
		if err != nil {
			return nil, err
		}
		if err := p.ready(m.client, m.url+"/minio/health/live"); err != nil {
			return nil, err
		}
		m.admin = func(users []minioUser) error { return m.addUsers(users, id, scheme, address) }
		limited := mayPut(bucketPrefix+"*", "allowed")
		return m, m.admin([]minioUser{
			{m.writer.id, m.writer.secret, limited},
			{m.caller.id, m.caller.secret, limited},
			{m.stranger.id, m.stranger.secret, nil},
		})
	})
}

// minioEnvironment is ours without what configures a MinIO.
func minioEnvironment() []string {
	var env []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "MINIO_") {
			env = append(env, pair)
		}
	}
	return env
}

func (m *minioServer) addUsers(users []minioUser, id identity, scheme, address string) error {
	input, err := json.Marshal(users)
	if err != nil {
		return err
	}
	path, err := buildAddUser()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-address", address)
	if scheme == "https" {
		cmd.Args = append(cmd.Args, "-cert", id.cert)
	}
	cmd.Env = append(os.Environ(), "ACCESS="+m.owner.id, "SECRET="+m.owner.secret)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("adding users to MinIO: %w\n%s", err, out)
	}
	return nil
}

func openMinIO(t *testing.T, scheme string) *site {
	t.Helper()
	m, err := minioServers[scheme]()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{
		column: minio, scheme: scheme,
		url: m.url, stsURL: m.url, sinkSTS: m.url, client: m.client,
		region:     region,
		owner:      m.owner,
		writer:     m.writer,
		kmsKey:     minioKey,
		role:       roleARN + "sink",
		externalID: external,
		caller:     m.caller,
		stranger:   m.stranger,
		lacks: map[need]string{
			needsShortSession: "no session shorter than 15 minutes",
			needsNoSTS:        "its S3 is its STS too",
		},
	}
	s.addBucket = s.createNamed
	s.addUser = func(k keys, _ string) error { return m.admin([]minioUser{{k.id, k.secret, nil}}) }
	s.allow = func(_ *testing.T, n *newcomer, p s3sink.Policies) error {
		return m.admin([]minioUser{{n.writer.id, n.writer.secret, document(p, s3sink.PermissionsPolicy)}})
	}
	s.kmsBucket = s.createKMS
	s.bucket = s.create(t)
	s.session = func(t *testing.T, life time.Duration) keys {
		t.Helper()
		return s.assumeRole(t, "DurationSeconds", fmt.Sprint(int(life.Seconds()))).session(t)
	}
	return s
}

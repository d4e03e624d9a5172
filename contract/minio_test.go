package contract

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/s3sink/s3sink/policy"
)

// minioKey looks like the id of a KMS key; MinIO takes any name.
const minioKey = "6d1f2a3e-0c4b-4a5d-8e9f-1a2b3c4d5e6f"

// minioServer is a running MinIO.
type minioServer struct {
	place
	owner, writer, caller, stranger keys
}

// minioUser is an element of the JSON array that servers/minio reads.
type minioUser struct {
	ID, Secret string
	Policy     any `json:",omitempty"` // nil: no permissions
}

var minioServers = eachScheme(startMinIO)

func startMinIO(scheme string) (*minioServer, error) {
	path, err := buildMinIO()
	if err != nil {
		return nil, err
	}
	return launch(scheme, func(at place) (*minioServer, error) {
		m := &minioServer{
			place:    at,
			owner:    keys{id: "AKIAOWNER00000000000", secret: rand.Text()},
			writer:   keys{id: "AKIAWRITER0000000000", secret: rand.Text()},
			caller:   keys{id: "AKIACALLER0000000000", secret: rand.Text()},
			stranger: keys{id: "AKIASTRANGER00000000", secret: rand.Text()},
		}
		kms := make([]byte, 32)
		rand.Read(kms) // never fails
		env := append(environmentWithout("MINIO_"),
			"HOME="+at.dir,
			"MINIO_ROOT_USER="+m.owner.id,
			"MINIO_ROOT_PASSWORD="+m.owner.secret,
			"MINIO_SITE_REGION="+region,
			"MINIO_KMS_SECRET_KEY="+minioKey+":"+base64.StdEncoding.EncodeToString(kms),
			"MINIO_BROWSER=off",
			"MINIO_UPDATE=off", // do not look for a newer version
		)
		certs := filepath.Join(at.dir, "certs") // empty: http
		if scheme == "https" {
			certs = filepath.Dir(at.id.cert)
		}
		if _, err := at.serve("/minio/health/live", "MinIO", path, env,
			"server", "--address", at.address, "--certs-dir", certs, filepath.Join(at.dir, "data")); err != nil {
			return nil, err
		}
		limited := mayPut(bucketPrefix+"*", "allowed")
		return m, m.addUsers([]minioUser{
			{m.writer.id, m.writer.secret, limited},
			{m.caller.id, m.caller.secret, limited},
			{m.stranger.id, m.stranger.secret, nil},
		})
	})
}

// addUsers adds users, or changes their policies.
func (m *minioServer) addUsers(users []minioUser) error {
	input, err := json.Marshal(users)
	if err != nil {
		return err
	}
	path, err := buildAddUser()
	if err != nil {
		return err
	}
	args := []string{"-address", m.address}
	if m.scheme == "https" {
		args = append(args, "-cert", m.id.cert)
	}
	env := append(os.Environ(), "ACCESS="+m.owner.id, "SECRET="+m.owner.secret)
	_, err = runTool("adding users to MinIO", path, env, input, args...)
	return err
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
	}
	s.addBucket = s.createNamed
	s.addUser = func(k keys, _ string) error { return m.addUsers([]minioUser{{k.id, k.secret, nil}}) }
	s.allow = func(_ *testing.T, n *newcomer, p policy.Set) error {
		return m.addUsers([]minioUser{{n.writer.id, n.writer.secret, document(p, policy.Permissions)}})
	}
	s.kmsBucket = s.createKMS
	s.bucket = s.create(t)
	s.session = func(t *testing.T, life time.Duration) keys {
		t.Helper()
		return s.assumeRole(t, "DurationSeconds", fmt.Sprint(int(life.Seconds()))).session(t)
	}
	return s
}

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"sync"
	"time"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3err"
)

// key is one access key: a line of standard input.
type key struct {
	ID, Secret string
	Token      string    // of a session
	Expires    time.Time // of a session
	ARN        string    // principal of the key in bucket policies
	RoleARN    string    // of a session: its principal in bucket policies
}

// accounts holds the keys that the gateway accepts besides the owner's. It takes
// the place of an IAM service, and of the sessions of an STS.
type accounts struct {
	auth.IAMService // creates nothing, changes nothing

	mu   sync.Mutex
	keys map[string]key
}

func newAccounts() *accounts {
	return &accounts{IAMService: auth.NewIAMServiceSingle(auth.Account{}), keys: make(map[string]key)}
}

func (a *accounts) add(k key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[k.ID] = k
}

func (a *accounts) get(id string) (key, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, ok := a.keys[id]
	return k, ok
}

func (k key) account() auth.Account {
	return auth.Account{
		Access:       k.ID,
		Role:         auth.RoleUser,
		SessionToken: k.Token,
		IsSession:    k.Token != "",
		Arn:          k.ARN,
		RoleArn:      k.RoleARN,
	}
}

// GetUserAccount is called when a bucket policy names an access key.
func (a *accounts) GetUserAccount(id string) (auth.Account, error) {
	k, ok := a.get(id)
	if !ok {
		return auth.Account{}, auth.ErrNoSuchUser
	}
	return k.account(), nil
}

// ResolveAccounts returns the principals that do not exist. It returns none: a
// bucket policy may name any ARN.
func (a *accounts) ResolveAccounts([]string) ([]string, error) { return nil, nil }

// DeriveSigningKey implements auth.SigningKeyProvider: the gateway accepts sessions
// only from such a provider.
func (a *accounts) DeriveSigningKey(id, token, date, region, service string) ([]byte, auth.Account, error) {
	k, ok := a.get(id)
	switch {
	case !ok:
		return nil, auth.Account{}, auth.ErrNoSuchUser
	case subtle.ConstantTimeCompare([]byte(token), []byte(k.Token)) == 0:
		return nil, auth.Account{}, auth.ErrInvalidSessionToken
	case !k.Expires.IsZero() && time.Now().After(k.Expires):
		return nil, auth.Account{}, errExpired
	}
	derived := []byte("AWS4" + k.Secret)
	for _, part := range []string{date, region, service, "aws4_request"} {
		mac := hmac.New(sha256.New, derived)
		mac.Write([]byte(part))
		derived = mac.Sum(nil)
	}
	return derived, k.account(), nil
}

// errExpired is the error of S3 for a session that has ended.
var errExpired = s3err.APIError{
	Code:           "ExpiredToken",
	Description:    "The provided token has expired.",
	HTTPStatusCode: http.StatusBadRequest,
}

package setup

import (
	"fmt"
	"strings"

	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

// accounts simulates AWS accounts on an S3 and STS double that enforces
// policies. It applies policies as an administrator does with the AWS CLI or
// the console.
type accounts struct {
	server *s3sinktest.Server

	// By ARN.
	users   map[string]s3sinktest.User
	roles   map[string]s3sinktest.Role
	buckets map[string]s3sinktest.BucketSettings
	keys    map[string]s3sinktest.KMSKey
}

func newAccounts(server *s3sinktest.Server) *accounts {
	return &accounts{
		server:  server,
		users:   map[string]s3sinktest.User{},
		roles:   map[string]s3sinktest.Role{},
		buckets: map[string]s3sinktest.BucketSettings{},
		keys:    map[string]s3sinktest.KMSKey{},
	}
}

// noPermissions is the policy of a new user. It allows only an action that
// needs no permission.
const noPermissions = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"}]}`

// addUser adds a user without permissions.
func (a *accounts) addUser(arn, accessKeyID, secret string) {
	user := s3sinktest.User{ARN: arn, AccessKeyID: accessKeyID, SecretAccessKey: secret, Policy: noPermissions}
	a.users[arn] = user
	a.server.AddUser(user)
}

func (a *accounts) addBucket(name, region string, settings s3sinktest.BucketSettings) {
	a.server.CreateBucket(name, region)
	a.server.ConfigureBucket(name, settings)
	a.buckets["arn:aws:s3:::"+name] = settings
}

func (a *accounts) addKey(key s3sinktest.KMSKey) {
	a.server.AddKMSKey(key)
	a.keys[key.ARN] = key
}

// apply attaches a policy to its role, user, bucket or key. It creates the role
// of a trust policy.
func (a *accounts) apply(d policy.Policy) error {
	user, isUser := a.users[d.Of]
	role, isRole := a.roles[d.Of]
	bucket, isBucket := a.buckets[d.Of]
	key, isKey := a.keys[d.Of]
	text := d.Document.String()
	switch {
	case d.Kind == policy.TrustPolicy:
		if !isRole { // as aws iam create-role
			role = s3sinktest.Role{ARN: d.Of, Actions: []string{}} // allows no action
		}
		role.TrustedPrincipals, role.ExternalID = trusted(d.Document)
		a.roles[d.Of] = role
		a.server.AddRole(role)
	case d.Kind == policy.Permissions && isRole:
		role.Policy = text
		a.roles[d.Of] = role
		a.server.AddRole(role)
	case d.Kind == policy.Permissions && isUser:
		user.Policy = text
		a.users[d.Of] = user
		a.server.AddUser(user)
	case d.Kind == policy.BucketPolicy && isBucket:
		bucket.Policy = text
		a.buckets[d.Of] = bucket
		a.server.ConfigureBucket(d.Of[strings.LastIndexByte(d.Of, ':')+1:], bucket)
	case d.Kind == policy.KeyPolicy && isKey:
		key.Policy = text
		a.addKey(key)
	default:
		return fmt.Errorf("cannot apply the %s of %s: no such user, role, bucket or key in the simulated accounts", d.Kind, d.Of)
	}
	return nil
}

// trusted returns the principals and the external id of a trust policy that
// Config.Policies wrote.
func trusted(p policy.Document) (principals []string, externalID string) {
	s := p.Statement[0]
	if ids := s.Condition["StringEquals"]["sts:ExternalId"]; len(ids) > 0 {
		externalID = ids[0]
	}
	return []string{s.Principal["AWS"]}, externalID
}

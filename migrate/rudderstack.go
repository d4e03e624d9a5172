package migrate

import (
	"cmp"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/s3sink/s3sink"
)

// FromRudderStack returns the Config of a sink that writes to the same bucket, as the
// same identity and with the same headers as RudderStack's S3 destination with these
// settings. Keys have the same form: [s3sink.RudderStackKeys]. Set KeyFormat to
// [s3sink.RudderStackListedKeys] if the days in the bucket begin with the year.
// settings is JSON: the config of the destination, or the whole destination.
//
//	bucketName                   Bucket
//	prefix                       Prefix, cleaned as RudderStack does
//	region                       Region
//	endpoint                     Endpoint; without a scheme it gets one
//	s3ForcePathStyle             UsePathStyle
//	disableSSL                   AllowPlaintext, for an http endpoint
//	enableSSE                    Encryption: SSES3()
//	iamRoleARN, roleBasedAuth    Credentials: AssumeRole
//	externalID, workspaceID      the role's external id, unless externalID is given
//	roleSessionName              WithSessionName
//	accessKeyID, accessKey or secretAccessKey, sessionToken
//	                             Credentials: AccessKeys
//	enabled                      Disabled, if it is false
//
// Credentials are chosen as RudderStack chooses them: the role, if there is one and
// roleBasedAuth is not false; else the access key, if both its parts are there; else
// [s3sink.Ambient], which reads the copy-user variables first. The external id of the role
// is the id of the RudderStack workspace. FromRudderStack refuses a role without it, as
// RudderStack does. opts are passed to [s3sink.AssumeRole].
//
// ACL is bucket-owner-full-control, which RudderStack always sends: where the writer
// belongs to another account and the bucket still has ACLs, the owner of the bucket could
// not read objects without it. The ACL may need s3:PutObjectAcl, which the first of
// RudderStack's documented policies lacks. [s3sink.Sink.Validate] reports that. If the
// bucket needs no ACL, set ACL to "".
//
// Keys may have any case, except roleBasedAuth, which RudderStack knows in this spelling
// only. Values that RudderStack's server fills in (env.NAME and {{…}}) are errors. ignored
// and the error are as in [FromSegment]; ignored also lists credentials that were not
// chosen. Set SourceID yourself: it is the id of the RudderStack source, which its
// destinations do not hold.
func FromRudderStack(settings []byte, externalID string, opts ...s3sink.RoleOption) (cfg s3sink.Config, ignored []string, err error) {
	r, err := readSettings(settings)
	if err != nil {
		return s3sink.Config{}, nil, err
	}
	r.templates = true
	dest := r.root
	set := dest
	if inner := dest.object("config"); inner != nil {
		set = inner
		dest.skip("id", "name", "createdAt", "updatedAt", "revisionId")
	}
	kind := dest.text("type")
	if definition := dest.object("destinationDefinition"); definition != nil {
		kind = cmp.Or(kind, definition.text("name"))
		definition.skipAll()
	}
	if kind != "" && kind != "S3" {
		dest.wrong("a destination of type S3", "type", "destinationDefinition")
	}
	cfg = s3sink.Config{
		KeyFormat:    s3sink.RudderStackKeys,
		Disabled:     dest.off("enabled"),
		Bucket:       strings.TrimRight(set.text("bucketName"), "/"),
		Prefix:       rudderPrefix(set.text("prefix")),
		Region:       set.text("region"),
		UsePathStyle: set.on("s3ForcePathStyle"),
		ACL:          "bucket-owner-full-control",
	}
	if set.on("enableSSE") {
		cfg.Encryption = s3sink.SSES3()
	}
	keys := map[string]string{
		"Bucket":              set.name("bucketName"),
		"Prefix":              set.name("prefix"),
		"KeyFormat":           set.name("prefix"),
		"Region":              set.name("region"),
		"Endpoint":            set.name("endpoint"),
		"Credentials.RoleARN": set.name("iamRoleARN"),
	}
	if set != dest {
		// RudderStack's server replaces the id in the config with this one.
		if workspace := dest.text("workspaceId"); externalID == "" {
			externalID, keys["Credentials.ExternalID"] = workspace, dest.name("workspaceId")
		}
	}
	set.rudderEndpoint(&cfg)
	set.rudderCredentials(&cfg, externalID, opts, keys)
	r.check(&cfg, keys)
	return r.result(cfg)
}

// rudderPrefix returns the part of RudderStack's keys before rudder-logs:
// https://github.com/rudderlabs/rudder-go-kit/blob/main/filemanager/s3manager.go
func rudderPrefix(prefix string) string {
	sanitize := func(key string) string { return strings.TrimLeft(strings.TrimSpace(key), "/") }
	if strings.HasPrefix(prefix, "/") {
		prefix = sanitize(prefix)
	}
	const folder = "rudder-logs"
	return strings.TrimSuffix(sanitize(path.Join(prefix, folder)), folder)
}

// rudderEndpoint reads the address of the store. Older settings name only a host.
func (s *settings) rudderEndpoint(cfg *s3sink.Config) {
	plain, endpoint := s.on("disableSSL"), s.text("endpoint")
	if endpoint != "" && !strings.Contains(endpoint, "://") {
		scheme := map[bool]string{false: "https://", true: "http://"}[plain]
		endpoint = scheme + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case endpoint == "" && plain:
		s.wrong("an endpoint beside it, or false: events go to AWS over TLS alone", "disableSSL")
	case err != nil: // check reports it
	case plain && u.Scheme == "https": // RudderStack sends in the clear then too
		s.wrong("http:// with disableSSL, or https:// without", "endpoint")
	case !plain && needsPlaintext(endpoint):
		s.wrong("https://, or disableSSL beside it for events to travel in the clear", "endpoint")
	}
	cfg.Endpoint, cfg.AllowPlaintext = endpoint, plain
}

// rudderCredentials chooses as RudderStack does:
// https://github.com/rudderlabs/rudder-go-kit/blob/main/awsutil/awsutil.go
func (s *settings) rudderCredentials(cfg *s3sink.Config, externalID string, opts []s3sink.RoleOption, keys map[string]string) {
	role := s.text("iamRoleARN")
	byRole, set := s.flag(s.find(exactly, "roleBasedAuth"))
	id, key := s.text("accessKeyID"), s.text("accessKey", "secretAccessKey")
	token := s.text("sessionToken")
	switch {
	case role != "" && (byRole || !set):
		s.unused("accessKeyID", "accessKey", "secretAccessKey", "sessionToken")
		if externalID == "" {
			externalID = s.text("externalID", "workspaceID")
			keys["Credentials.ExternalID"] = s.name("externalID", "workspaceID")
		}
		if externalID == "" {
			s.wrong("its external id in the call or as workspaceID: the id of the RudderStack workspace, which is sts:ExternalId in the role's trust policy", "iamRoleARN")
		}
		if name := s.text("roleSessionName"); name != "" {
			keys["Credentials.SessionName"] = s.name("roleSessionName")
			opts = slices.Concat([]s3sink.RoleOption{s3sink.WithSessionName(name)}, opts)
		}
		cfg.Credentials = s3sink.AssumeRole(role, externalID, opts...)
	case id != "" && key != "":
		s.unused("iamRoleARN")
		cfg.Credentials = s3sink.AccessKeys(id, key, token)
	default:
		s.unused("iamRoleARN", "accessKeyID", "accessKey", "secretAccessKey", "sessionToken")
		cfg.Credentials = s3sink.Ambient()
	}
}

// needsPlaintext reports whether New refuses the endpoint only because events
// would travel in the clear.
func needsPlaintext(endpoint string) bool {
	cfg := s3sink.Config{Bucket: "any", SourceID: "any", Endpoint: endpoint}
	encrypted := cfg.Check()
	cfg.AllowPlaintext = true
	return encrypted != nil && cfg.Check() == nil
}

"""What an upstream's message must not show: secrets, hosts and paths inside, in one pattern."""

from typing import Final

SECRETS: Final = r"""
      [a-z][a-z0-9+.-]*://[^\s/"'<>]*@[^\s"'<>]*                              # a URL with credentials
    | \b(?!https?:)[a-z][a-z0-9+.-]*://[^\s"'<>]+                             # a URL of a database, a file, a bucket
    | (?<=[?&])[\w.-]+=[^\s&"'<>)]+                                            # a URL's query
    | [a-z][a-z0-9+.-]*://(?:[\w-]+|[\d.]+|\[[0-9a-f:.%]+\]
        |[\w.-]+\.(?:local|localdomain|internal|intranet|svc|cluster|lan|corp|consul)(?:\.[\w-]+)*)
      (?=[:/\s"'<>)]|$)[^\s"'<>]*                                             # the URL of an internal host
    | \b(?:[\w-]+\.)+(?:local|localdomain|internal|intranet|svc|cluster|lan|corp|consul)\b
      (?:\.[\w-]+)*(?::\d+)?                                                  # an internal host
    | \blocalhost(?::\d+)?\b | \bip-\d{1,3}(?:-\d{1,3}){3}[\w.-]*
    | \b[a-z][a-z0-9-]*-[a-z0-9]{8,10}-[a-z0-9]{5}\b(?<=\d[a-z0-9-]{14}|.\d[a-z0-9-]{13}|..\d[a-z0-9-]{12})
    | (?:(?<=\bto\ )|(?<=\btcp\ )|(?<=\bhost\ )|(?<=\bupstream\ )|(?<=\bserver\ )|(?<=\bbackend\ )|(?<=\blookup\ )
        |(?<=\bfrom\ )|(?<=\bat\ ))(?!\d{4}-)[\w.-]*[a-z][\w.-]*:\d{2,5}\b            # a host with its port
    | \bhost(?:name)?=["']?[^\s"'<>,)]+
    | [^\s"'`(,;]*\b\d{1,3}(?:\.\d{1,3}){3}\b[^\s"'`),;]*                      # an IPv4 address
    | \[?(?<![\w:.])(?:(?:[0-9a-f]{1,4}:){5,7}[0-9a-f]{1,4}
        |[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}::(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?
        |::[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})(?:%\w+)?(?![\w:])(?:/\d+)?\]?(?::\d+)?   # an IPv6 or MAC address
    | \b[\w.+-]+@[\w-]+(?:\.[\w-]+)+                                          # an e-mail address
    | \bbearer\s+(?!token\b|auth)[^\s"'<>]{4,}
    | \bbasic\s+(?=\S*[\d=])[\w+/=-]{8,}
    | \b(?:authorization|(?:x-)?api[ _-]?key|(?:access|private|account|subscription)[ _-]?key|client[ _-]?secret|secret
        |password|passwd|passphrase|pwd|token)["']?\s*[:=]\s*["']?(?!not\b|is\b)[^\s"'<>,]{4,}
    | \b(?:set-)?cookies?["']?\s*[:=]\s*["']?[^\s"'<>;]{4,}(?:;\s*[\w.-]+=[^\s;"'<>]+)*
    | \b(?:\w*sess(?:ion)?[ _-]?(?:id|key)?|sid|\w*csrf\w*|\w*xsrf\w*)["']?\s*[:=]\s*["']?(?=[^\s"'<>,;]*\d)
      [^\s"'<>,;]{6,}
    | -----BEGIN\ [A-Z ]*(?:.*?-----END\ [A-Z ]*-----|.*)                      # a key or a certificate
    | \b(?:sk|rk|pk|gsk|xai|hf|gh[oprsu]|github_pat|gl[a-z]{2,4}t|pplx|nvapi|csk|pcsk|r8|tgp|fw|rpa|sbp|ya29|hv[bsr]|npm
        |pypi|dop_v1|dckr_pat|shp[a-z]{2}|whsec|glsa|lin_api|ntn|sntry[su]|xox[a-z](?:\.xox[a-z])?|xapp|SG)
      [-_.][\w.*+/=-]{6,}                                                      # a token, by its prefix
    | \b(?:org-|proj_|acct_|user-)[A-Za-z0-9]{8,}
    | \b(?:AIza|eyJ|AKIA|ASIA|AROA|dapi)[\w.*+/=-]{10,}
    | \barn:aws[\w-]*:[\w-]*:[\w-]*:\d{12}:[^\s"'<>),]*                       # a resource, with its account
    | \b[a-z]:\\(?:[^"'<>|,)]*\\)?[^\s"'<>|,)]* | \b[a-z]:/(?!/)[^\s"'<>|,)]* # a path of Windows
    | (?<!\S)\\\\[\w.-]+\\[^\s"'<>]*
    | (?<![\w./-])~?/(?:home|usr|opt|app|var|root|srv|tmp|etc|mnt|data|workspace|Users|run|proc|dev|sys|lib|lib64|bin
        |boot|media|Library|Applications|private|Volumes|nix|code|src|build|models?|weights|checkpoints|cache|scratch|shared
        |config|secrets|vllm-workspace)/[^\s"'<>),]*
    | (?<![\w./-])~/[^\s"'<>),]+
    | (?<![\w./:-])(?:\.{0,2}/)?(?:[\w@+-][\w.@+-]*/)+[\w@+-][\w.@+-]*
      \.(?:py|so|go|js|ts|rs|rb|java|cc|cpp|cu|gguf|safetensors|pem|key|crt|ya?ml|toml|conf|ini|env|log|sock|sqlite|sh)
      \b(?::\d+)?                                                             # a file
    | (?<![\w+/=-])(?=[0-9a-f]*\d)(?=\d*[a-f])[0-9a-f]{16,}(?![\w+/=-])
    | (?<![\w+/=-])(?=[\w+/=-]*\d[\w+/=-]*\d[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[\w+/=-]{32,}   # an opaque token
"""
"""To be compiled with ``re.IGNORECASE`` and ``re.VERBOSE``."""

# An MCP server of 2025-11-25 over standard input and output.
while IFS= read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/^{"jsonrpc":"2.0","id":\([0-9]*\),.*/\1/p')
    answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
    text() { answer "{\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]}"; }
    tool() { printf '{"name":"%s","description":"For tests","inputSchema":{"type":"object"}}' "$1"; }
    case $line in
    *'"method":"initialize"'*)
        answer '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"program","version":"1"}}'
        ;;
    *'"method":"tools/list"'*)
        answer "{\"tools\":[$(tool say),$(tool crash),$(tool variables),$(tool children),$(tool hoard),$(tool noise)]}"
        ;;
    *'"method":"tools/call"'*)
        case $line in
        *'"name":"say"'*) text "from $$" ;;
        *'"name":"crash"'*) exit 3 ;;
        *'"name":"variables"'*) text "$(tr '\0' '\n' </proc/$$/environ | cut -d= -f1 | tr '\n' ' ')" ;;
        *'"name":"children"'*)
            sleep 1000 &
            text "$$ $!"
            ;;
        *'"name":"hoard"'*)
            data=$(head -c 200000000 /dev/zero | tr '\0' x)
            text "${#data}"
            ;;
        *'"name":"noise"'*)
            echo "noise with $SECRET" >&2
            text "made"
            ;;
        esac
        ;;
    *'"id":'*)
        printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"unknown method"}}\n' "$id"
        ;;
    esac
done

"""The experts' scripts, one line per task; expert.py says how to read them. Where it is empty, the form is all."""

from __future__ import annotations

from collections.abc import Mapping

# wechat: parts that several ways share
_SETTINGS = "#tab.me > #me.settings.open > "
_GENERAL = _SETTINGS + "#settings.general.open > "
_FRIENDS = _SETTINGS + "#settings.privacy.friends.open > "
_SPORTS = _GENERAL + "#settings.general.accessibility.open > #settings.accessibility.wechatSports.open > "
_CONTACT = "#tab.contacts > {contact} > #friendSettings.open > "
_MOMENTS = "#tab.discover > #discover.moments.open > _#moments.post.open.longPress > ? > ={content} > "

WECHAT = {
    "EnableDarkMode": _GENERAL
    + "#settings.general.darkMode.open > @settings.general.darkMode.followSystem.toggle > "
    + "@settings.general.darkMode.mode.select.dark > @settings.general.darkMode.submit",
    "OpenBlacklist": _FRIENDS + "#settings.privacy.blacklist.open",
    "OpenNewFriends": "#tab.contacts > #contacts.newFriends.open",
    "OpenRadarAddFriend": "#home.menu.plus.open > #plusMenu.addFriend.open > #addFriend.radar.open",
    "SetAddMeSearch": _FRIENDS
    + "#settings.privacy.addMe.open > @settings.privacy.addMe.searchByPhone.toggle > "
    + "@settings.privacy.addMe.searchByWxid.toggle",
    "SetFriendChatOnly": _CONTACT
    + "#friendPermissionsDetail.open > @friendPermissionsDetail.permissionMode.select.chatOnly",
    "SetPatText": "#tab.me > #profile.detail.open > #profile.pat.open > ? > !clear > ={text} > @profile.pat.submit",
    "SetSignature": "#tab.me > #profile.detail.open > #profile.signature.open > ? > !clear > ={text} > "
    + "@profile.signature.submit",
    "StarAndRestrictFriend": _CONTACT
    + "@friendSettings.item.star.toggle > #friendPermissionsDetail.open > "
    + "@friendPermissionsDetail.item.hideMyMoments.toggle > @friendPermissionsDetail.item.hideTheirMoments.toggle",
    "BlacklistContact": _CONTACT + "#friendSettings.menu.blacklistConfirm.open > 确定",
    "ToggleFriendConfirmation": _FRIENDS + "@settings.privacy.friendConfirmation.toggle",
    "ToggleMobileAutoPlayMomentsVideo": _GENERAL
    + "#settings.general.media.open > @settings.general.media.mobileAutoPlay.toggle",
    "ToggleStrangerViewMoments": _FRIENDS
    + "#settings.privacy.moments.open > @settings.privacy.moments.strangerTen.toggle",
    "SetMomentsVisibleRange": _FRIENDS
    + "#settings.privacy.moments.open > #settings.privacy.moments.menu.range.open > {range}",
    "ToggleDiscoverEntry": _GENERAL
    + "#settings.general.discover.open > #settings.discover.item.open?id={entry} > @settings.discover.item.visible.toggle",
    "ToggleWechatSports": _SPORTS
    + "@settings.accessibility.wechatSports.enable.submit|@settings.accessibility.wechatSports.disable.submit",
    "DisableWechatSportsLeaderboard": _SPORTS
    + "@settings.accessibility.wechatSports.enable.submit > #wechatSports.privacy.open > @wechatSports.privacy.joinLeaderboard.toggle",
    "ReadStepsLeaderboardTop": _SPORTS + "@settings.accessibility.wechatSports.enable.submit",
    "DeauthorizeApp": _SETTINGS
    + "#settings.privacy.personal.open > #settings.privacy.authorization.open > {app_name} > "
    + "#settings.privacy.authorization.menu.confirm.open > 解除授权",
    "PostMomentsText": _MOMENTS + "@moments.postText.submit",
    "PostMomentsTextWithCity": _MOMENTS + "#selectLocation.open > {location} > @moments.postText.submit",
}

_ALIPAY = "#tab.my > #settings.open > "
ALIPAY = {
    "ConfigureLanguageAndFastPay": _ALIPAY
    + "#settings.payment.open > #settings.payment.fastPay.open > @fastPay.enabled.toggle > !wait > "
    + "@fastPay.easterEgg.toggle > #system.back > #system.back > #settings.general.open > "
    + "#settings.general.language.open > @language.select.en > @language.save.submit",
    "DisableAllNotifications": _ALIPAY
    + "#settings.notifications.open > @notification.tradeSecurity.toggle > @notification.service.toggle > "
    + "@notification.activity.toggle > @notification.friendDetail.toggle > @notification.friendReminder.toggle > "
    + "@notification.sound.toggle > @notification.vibration.toggle",
    "EnableDarkMode": _ALIPAY + "#settings.general.open > #settings.general.darkMode.open > @darkMode.mode.select.dark",
    "SendMessageToContact": "#tab.messages > #contacts.open > {contact_inner} > 发消息 > ? > ={text} > 发送",
    "ShowReceiveQRCode": "#pay.open > 收钱",
    "EnableRefreshSound": _ALIPAY + "#settings.general.open > @general.refreshSound.toggle",
    "FindFriend": "",
}

_MEETING = "#home.profile.open > #settings.open|设置 > "
TENCENT_MEETING = {
    "ConfigPrivacySettings": _MEETING + "@settings.video.hideNonVideo.toggle > @settings.video.hideSelf.toggle",
    "ConfigAudioSettings": _MEETING + "@settings.audio.micOnJoin.toggle > @settings.audio.speakerOnJoin.toggle",
    "ToggleNotification": _MEETING + "@settings.notifications.toggle",
    "CheckScheduledMeetingEndTime": "",
    "FindMeetingHistory": "",
}

_WEATHER = "#menu.open > #settings.open > "
_CITY = "#cities.open > #city.search.open > ? > ={city} > {city} > 添加|添加城市"
WEATHER = {
    "SwitchTempUnit": _WEATHER + "温度单位 > {unit_shown}",
    "SwitchWindUnit": _WEATHER + "#settings.picker.wind.open > @settings.windUnit.select.{unit}",
    "EnableNightDnd": _WEATHER + "夜间免打扰",
    "SwitchUnitAndReport": _WEATHER + "温度单位 > 华氏度",
    "ThreeCityRainCheck": "",
    "WeekendTempRange3City": "",
    "ColdestDayIn14": "",
    "AddCityAndFindWarmestDay": _CITY,
    "AddCityFullReport": _CITY,
}

_READING = "#tab.me > #settings.open > "
WECHAT_READING = {
    "EditProfileName": "#tab.me > #profile.edit.open > ? > !clear > ={new_name}",
    "SetDarkMode": _READING + "#settings.darkMode.open > @settings.darkMode.select.{dark_mode:浅色=light,深色=dark}",
    "SetProfileVisibility": _READING + "#settings.privacy.open > #settings.privacy.profile.open > {visibility_shown}",
    "AddBookToShelf": "#search.open > ? > ={book_title} > #book.detail.open > 加入书架",
    "UnfollowUser": "#tab.me > #following.open.following > ^{user_name}",
    "ManageShelf": "#tab.bookshelf > _{book_title} > #bookshelf.modal.confirm_remove.open > @bookshelf.removeSelected.submit",
    "TogglePrivateReading": "#tab.bookshelf > _{book_title} > #bookshelf.modal.private.open > @bookshelf.privateReading.enable.submit",
}

_SPOTIFY = "#home.sidebar.open > #settings.open > "
SPOTIFY = {
    "TogglePrivacy": _SPOTIFY + "#settings.privacy.open > @settings.privacy.listeningActivity.toggle",
    "CreateNewPlaylist": "#create.open > 歌单 > ? > !clear > ={name} > 创建",
    "SetSleepTimer": "#player.open > #player.trackMenu.open > 睡眠定时器 > {minutes} 分钟",
    "FindRecentArtistSongs": "",
    "ListLibraryArtists": "",
}

CALENDAR = {
    "ToggleShowWeekNumber": "更多 > 设置 > 显示周数",
    "ChangeDefaultReminder": "更多 > 设置 > 默认提前提醒时间 > {reminder_shown}",
    "DeleteEvent": "搜索日程 > ? > ={title} > {title} > 删除 > 删除",
}
_WORLD = "世界时钟 > "
CLOCK = {
    "AddWorldCity": _WORLD + "添加 > ? > ={city} > {city}",
    "RemoveWorldCity": _WORLD + "_{city} > 删除",
    "ReorganizeWorldClock": _WORLD + "_{remove_city} > 删除 > 添加 > ? > ={add_city} > {add_city}",
    "AddCityAndCheckTime": _WORLD + "添加 > ? > ={city} > {city}",
    "CheckCityTime": "",
    "DeleteAlarm": "_{time} > 删除",
    "ToggleAlarm": "^{time}",
}
NOTES = {
    "AddNewTodo": "待办 > 新建待办 > ?输入待办内容 > ={text} > !enter",
    "ChangeViewMode": "设置 > {mode:grid=双列,list=单列}",
    "CreateNewNote": "新建笔记 > ?标题 > ={title} > 完成",
    "PinNote": "_{note_title} > 置顶",
    "CreateFolderAndMoveNote": "文件夹 > 新建文件夹 > ? > ={folder_name} > 确定 > #system.back > 全部 > _{note_title} > 移动到 > {folder_name}",
    "RestoreFromTrash": "文件夹 > 回收站 > {note_title} > 恢复",
    "ReadNoteContent": "",
}
SMS = {
    "OpenConversationBySender": "{conversation_id_shown}",
    "ToggleMainSetting": "&330,77 > ^{setting_key_shown}",
    "ToggleFreeNetworkSetting": "&330,77 > 网络短信设置 > ^{setting_key_shown}",
    "DeleteConversation": "_{sender} > 删除",
    "MarkAllConversationsRead": "&287,77",
}

_SUITES = {
    "wechat": WECHAT,
    "alipay": ALIPAY,
    "tencent_meeting": TENCENT_MEETING,
    "weather": WEATHER,
    "wechat_reading": WECHAT_READING,
    "spotify": SPOTIFY,
    "calendar": CALENDAR,
    "clock": CLOCK,
    "notes": NOTES,
    "sms": SMS,
}
SCRIPTS: Mapping[str, str] = {
    f"{suite}.{task}": script for suite, scripts in _SUITES.items() for task, script in scripts.items()
} | {
    "account.WechatAccountCancellation": _SETTINGS
    + "#settings.security.open > #securityCenter.open > #account.delete.open > &105,753 > #account.delete.apply > #account.delete.next > 确认注销"
}
